"""An engine of ftk as an ``LM`` of https://github.com/EleutherAI/lm-evaluation-harness, lm_eval/api/model.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ftk import DataError, Message, PluginError, Prompt, Sampling
from ftk_data import renderer
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows

if TYPE_CHECKING:
    from ftk.run import Run

Asked = tuple[tuple[str, str], list[int], list[int]]
"""((context, continuation), their tokens)"""
LIMIT = 2048
"""Tokens that are read by a model that does not say how many it can."""


class EngineLM(TemplateLM):  # type: ignore[misc]
    """Answers the harness's requests with an engine, ``batch_size`` at a time.

    Prompts are texts: what the harness writes, or what :meth:`apply_chat_template` made of a conversation, so special
    tokens in them are read as such.
    """

    def __init__(self, run: Run, engine: Any, batch_size: int) -> None:
        super().__init__()
        if not hasattr(engine, "likelihoods"):
            raise PluginError(f"{run.value('infer_backend') or 'this engine'}: gives no log-probabilities of answers")
        self.engine, self.tokenizer, self.batch_size = engine, run.tokenizer, batch_size
        self.template, self.name = renderer(run), f"{run.value('model_name_or_path')} {run.template.name}"
        config = run.model_config
        own = getattr(config.get_text_config(), "max_position_embeddings", None) if config is not None else None
        self.max_length = own or LIMIT

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def tokenizer_name(self) -> str:
        return self.name.replace("/", "__").replace(" ", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The tokens of a text. Unset adds the first token that the tokenizer puts in front, but never twice."""
        if add_special_tokens is None:
            bos = self.tokenizer.bos_token
            add_special_tokens = not (bos and string.startswith(bos))
        return list(self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"])

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.template.jinja() if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        """A conversation as the run's template writes it. Raises DataError for what it cannot write."""
        messages = [Message(one["role"], _text(one["content"])) for one in chat_history]
        if add_generation_prompt:
            return self.template.prompt_text(messages)
        # the harness wants an answer that goes on: what it starts with, without the end of the turn
        *before, last = messages
        if last.role != "assistant":
            return "".join(one.text for one in self.template.render(messages)[-1])
        return self.template.prompt_text(before) + last.text

    def _loglikelihood_tokens(
        self, requests: Sequence[Asked], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """(sum of log-probabilities, whether greedy decoding says it) of each; the longest first."""
        rows = [self._cut(context, follows) for _, context, follows in requests]
        found: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        order = sorted(range(len(rows)), key=lambda number: (-sum(map(len, rows[number])), rows[number]))
        for numbers in _batches(order, self.batch_size):
            for number, said in zip(numbers, self.engine.likelihoods([rows[one] for one in numbers]), strict=True):
                found[number] = sum(value for value, _ in said), all(greedy for _, greedy in said)
                self.cache_hook.add_partial("loglikelihood", requests[number][0], found[number])
        return found

    def _cut(self, context: list[int], follows: list[int]) -> tuple[list[int], list[int]]:
        """What is too long loses the beginning of its context, as in the harness's own models."""
        room = self.max_length + 1 - len(follows)
        if room < 1:
            raise DataError(f"a continuation has {len(follows)} tokens, but the model reads {self.max_length}")
        return context[-room:], follows

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text, in windows as long as the model reads."""
        totals = []
        for request in requests:
            tokens = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = list(get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1))
            parts = [
                one
                for batch in _batches(windows, self.batch_size)
                for one in self.engine.likelihoods([(read[: len(read) - len(new) + 1], new) for read, new in batch])
            ]
            totals.append(sum(value for part in parts for value, _ in part))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, totals[-1])
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The answers; requests that are sampled alike are answered together."""
        found = [""] * len(requests)
        alike: dict[Sampling, list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(sampling_of(request.args[1]), []).append(number)
        for sampling, all_numbers in alike.items():
            for numbers in _batches(all_numbers, self.batch_size):
                prompts = [self._prompt(requests[number].args[0], sampling) for number in numbers]
                for number, reply in zip(numbers, self.engine.generate(prompts, sampling), strict=True):
                    found[number] = reply.text
                    self.cache_hook.add_partial("generate_until", requests[number].args, reply.text)
        return found

    def _prompt(self, context: str, sampling: Sampling) -> Prompt:
        room = self.max_length - sampling.max_new_tokens
        if room < 1:
            most, reads = sampling.max_new_tokens, self.max_length
            raise DataError(f"max_gen_toks: {most}: leaves no room for a prompt; the model reads {reads}")
        return Prompt((), text=tuple(self.tok_encode(context)[-room:] or [self.prefix_token_id]))


def sampling_of(asked: Mapping[str, Any]) -> Sampling:
    """How the harness's ``gen_kwargs`` are sampled. Greedy unless they say otherwise; what is not known is refused."""
    values = dict(asked)
    stops = values.pop("until", None) or ()
    most = values.pop("max_gen_toks", values.pop("max_new_tokens", 256))
    temperature = float(values.pop("temperature", 0.0) or 0.0)
    sampled = bool(values.pop("do_sample", temperature > 0)) and temperature > 0
    sampling = Sampling(
        max_new_tokens=int(most), do_sample=sampled, temperature=temperature or 1.0, top_p=1.0, top_k=0,
        stop=(stops,) if isinstance(stops, str) else tuple(stops),
    )  # fmt: skip
    known = {"top_p", "top_k", "min_p", "num_beams", "repetition_penalty", "seed"}
    if strange := sorted(values.keys() - known):
        raise DataError(f"gen_kwargs: {strange[0]}: is not known. Known: {', '.join(sorted(known))}")
    return replace(sampling, **values)


def _batches(rows: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _text(content: Any) -> str:
    if not isinstance(content, str):
        raise DataError("messages: only text is shown to models here")
    return content
