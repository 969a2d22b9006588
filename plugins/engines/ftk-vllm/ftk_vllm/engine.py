"""The engine: prompts become tokens as in training, vLLM makes them into answers, for all callers together."""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from ftk import ConfigError, DataError, ModelError, Prompt, Reply, Sampling
from ftk.errors import FtkError
from ftk_data.asking import Asked, Asking
from ftk_peft.serving import Served

from ftk_vllm.loop import Loop
from ftk_vllm.sampling import params_of

if TYPE_CHECKING:
    from ftk_vllm.showing import Showing

log = logging.getLogger("ftk.vllm")


@dataclass
class Answer:
    """What has come of an answer to ``asked``."""

    asked: Asked
    said: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    finish: str | None = None
    by_token: bool = False

    def take(self, output: Any, count: int | None) -> str:
        """The next part of it (vLLM's CompletionOutput): its text. count: of the logprobs that were asked for."""
        self.tokens += output.token_ids
        if count is not None:
            new = zip(output.token_ids, output.logprobs[-len(output.token_ids) :], strict=True)
            self.logprobs += [told(token, found, count) for token, found in new]
        self.finish = output.finish_reason
        self.by_token = not isinstance(output.stop_reason, str)
        self.said.append(output.text)
        return str(output.text)

    def reply(self, count: int | None) -> Reply:
        meta: dict[str, object] = {"tokens": self.tokens}
        if count is not None:
            meta["logprobs"] = self.logprobs
        finish = "stop" if self.finish == "stop" else "length"
        return Reply("".join(self.said), finish, len(self.asked.ids), len(self.tokens), meta)  # type: ignore[arg-type]


def told(token: int, found: Any, count: int) -> tuple[tuple[int, float], ...]:
    """A token with its log-probability, then the ``count`` most likely ones. found: vLLM's, token → Logprob."""
    best = sorted(found.items(), key=lambda one: one[1].rank or 0)[:count]
    return ((token, float(found[token].logprob)), *((other, float(one.logprob)) for other, one in best))


class VllmEngine:
    """A :class:`ftk.types.RunningEngine` on vLLM's AsyncLLM (``client``), which lives in ``loop``.

    Callers of all threads are answered together. An answer has random numbers of its own where there is a seed.
    """

    def __init__(
        self, client: Any, loop: Loop, asking: Asking, loads: Served, showing: Showing | None = None,
        where: str = "infer_backend: vllm",
    ) -> None:  # fmt: skip
        self._client, self._loop, self._asking, self._loads, self._showing = client, loop, asking, loads, showing
        self._where = where
        self.adapters = tuple(loads.named)
        self._numbers = itertools.count(1)
        self._requests = {name: self._adapter(folder) for name, folder in loads.named.items()}
        self._own = self._adapter(loads.own) if loads.own else None
        self._beside = getattr(getattr(client, "vllm_config", None), "lora_config", None) is not None
        self._taken: Path | None = None
        self._told = False

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Reply]:
        """Answer every prompt, in order. Raises DataError for what cannot be asked, before anything is answered."""
        jobs = [self._job(prompt, sampling, number) for number, prompt in enumerate(prompts)]
        with explained():
            return self._loop.run(self._all(jobs, sampling)) if jobs else []

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[str, None, Reply]:
        """Answer one prompt piece by piece. Closing the iterator ends vLLM's work on it."""
        answer, request = self._job(prompt, sampling, 0, pieces=True)
        made = self._loop.each(self._client.generate(**request))
        try:
            with explained():
                for output in made:
                    self._check(output, answer.asked)
                    if piece := answer.take(output.outputs[0], sampling.logprobs):
                        yield piece
        finally:
            made.close()
        if end := self._end(answer, sampling):
            answer.said.append(end)
            yield end
        return answer.reply(sampling.logprobs)

    def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """The mean natural log-probability per token of each conversation's last turn, its stop token included.

        Raises DataError when a conversation does not end with an answer.
        """
        asked = [self._asking.answered(prompt) for prompt in prompts]
        with explained():
            return self._loop.run(self._scores(asked)) if asked else []

    def refresh(self, model: Any) -> None:
        """Answer with the adapter of a model in training from now on.

        Raises ConfigError for a model whose training changes more than a plain LoRA adapter beside the same base.
        """
        from ftk_peft.serving import changes_base, not_plain

        config = getattr(model, "active_peft_config", None)
        why = "it has no adapter" if config is None else not_plain(config.to_dict())
        if not why and changes_base(config.to_dict()):
            why = f"init_lora_weights: {config.init_lora_weights} changes the base"
        if why or self._loads.made is not None:
            raise ConfigError(
                f"{self._where}: takes over plain LoRA adapters of a model in training, and nothing else "
                f"({why or 'the base is merged'}). Leave it out"
            )
        folder = Path(tempfile.mkdtemp(prefix="ftk-refreshed-"))
        try:
            model.save_pretrained(folder)
            request = self._adapter(str(folder))
            with explained():
                self._loop.run(self._client.add_lora(request))
                if self._taken is not None:
                    self._loop.run(self._client.remove_lora(self._own.lora_int_id))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if self._taken is not None:
            shutil.rmtree(self._taken, ignore_errors=True)
        self._own, self._taken = request, folder

    def close(self) -> None:
        """End vLLM's processes. Calling it twice is harmless."""
        if self._client is not None:
            client, self._client = self._client, None
            self._loop.call(client.shutdown)
            self._loop.close()
            client.shutdown = lambda *_, **__: None  # it does once more when it is collected, and fails as Python ends
        self._loads.close()
        if self._taken is not None:
            shutil.rmtree(self._taken, ignore_errors=True)

    # One request

    def _job(
        self, prompt: Prompt, sampling: Sampling, number: int, pieces: bool = False
    ) -> tuple[Answer, dict[str, Any]]:
        """An answer and the arguments of ``AsyncLLM.generate`` that begin it."""
        if self._client is None:
            raise ModelError("vllm: is closed")
        asked = self._asking.asked(prompt)
        room = self._asking.room(asked, sampling.max_new_tokens)
        fields = params_of(sampling, self._asking.ends, self._asking.stops, room, number)
        return Answer(asked), self._request(asked, fields, pieces, self._chosen(sampling.adapter))

    def _request(self, asked: Asked, fields: dict[str, Any], pieces: bool, lora: Any) -> dict[str, Any]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        if (form := fields.pop("structured_outputs", None)) is not None:
            fields["structured_outputs"] = StructuredOutputsParams(**form)
        kind = RequestOutputKind.DELTA if pieces else RequestOutputKind.FINAL_ONLY
        try:
            params = SamplingParams(**fields, output_kind=kind)
        except ValueError as cause:
            raise DataError(f"vllm: {' '.join(str(cause).split())[:300]}") from cause
        prompt: dict[str, Any] = {"prompt_token_ids": asked.short}
        if asked.media and self._showing is not None:
            prompt["multi_modal_data"] = self._showing.data(asked.media)
        return {
            "prompt": prompt,
            "sampling_params": params,
            "request_id": f"ftk-{next(self._numbers)}",
            "lora_request": lora,
        }

    def _chosen(self, adapter: str | None) -> Any:
        if adapter is None:
            return self._own
        if adapter not in self._requests:
            known = ", ".join(self._requests) or "none; lora_modules names them"
            raise DataError(f"adapter {adapter}: is not there. There are {known}")
        return self._requests[adapter]

    def _adapter(self, folder: str) -> Any:
        from vllm.lora.request import LoRARequest

        number = next(self._numbers)
        return LoRARequest(f"ftk-{number}", number, folder)

    async def _all(self, jobs: Sequence[tuple[Answer, dict[str, Any]]], sampling: Sampling) -> list[Reply]:
        """All answers; what goes wrong with one ends the others."""
        async with asyncio.TaskGroup() as group:
            for answer, request in jobs:
                group.create_task(self._one(answer, self._client.generate(**request), sampling))
        return [answer.reply(sampling.logprobs) for answer, _ in jobs]

    async def _one(self, answer: Answer, made: AsyncGenerator[Any, None], sampling: Sampling) -> None:
        async for output in made:
            self._check(output, answer.asked)
            answer.take(output.outputs[0], sampling.logprobs)
        answer.said.append(self._end(answer, sampling))

    async def _scores(self, asked: Sequence[Asked]) -> list[float]:
        by = self._score_by_tokens if self._beside else self._score
        return await asyncio.gather(*(by(one) for one in asked))

    async def _score(self, one: Asked) -> float:
        fields = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False}
        output = await self._last(one, self._request(one, fields, False, self._own))
        said = zip(one.ids, output.prompt_logprobs, one.scored, strict=True)
        return mean([float(probs[token].logprob) for token, probs, counts in said if counts])

    async def _score_by_tokens(self, one: Asked) -> float:
        """A request for each token, which shares all before it with the others' (prefix caching).

        Where there may be adapters, vLLM 0.32 counts rows of logits by requests, and its process dies of the rows that
        ``prompt_logprobs`` has.
        """

        async def told(place: int) -> float:
            token = one.ids[place]
            fields = {
                "max_tokens": 1, "temperature": 0.0, "logprobs": 0, "allowed_token_ids": [token], "detokenize": False,
            }  # fmt: skip
            before = len(one.ids) - place
            prefix = replace(one, ids=one.ids[:-before], short=one.short[:-before])
            output = await self._last(prefix, self._request(prefix, fields, False, self._own))
            return float(output.outputs[0].logprobs[0][token].logprob)

        return mean(await asyncio.gather(*(told(place) for place, counts in enumerate(one.scored) if counts)))

    async def _last(self, asked: Asked, request: dict[str, Any]) -> Any:
        """The only output of a request that is scored."""
        found = [output async for output in self._client.generate(**request)]
        self._check(found[-1], asked, strictly=True)
        return found[-1]

    def _end(self, answer: Answer, sampling: Sampling) -> str:
        """The text of the token that ended an answer, where special tokens are shown. vLLM leaves it out."""
        if sampling.skip_special_tokens or answer.finish != "stop" or not answer.by_token:
            return ""
        return str(self._asking.tokenizer.decode(answer.tokens[-1:], skip_special_tokens=False))

    def _check(self, output: Any, asked: Asked, strictly: bool = False) -> None:
        """Whether the model reads the tokens that it was trained on, now that vLLM has put the media in."""
        if not asked.media or output.prompt_token_ids == asked.ids:
            return
        read = len(output.prompt_token_ids)
        said = f"vllm reads {read} tokens for a prompt with media that has {len(asked.ids)} in training"
        if strictly:
            raise DataError(f"{said}, so it cannot be scored")
        if not self._told:
            self._told = True
            log.warning(
                "%s. Its processor's settings differ: vllm_config: {mm_processor_kwargs: {...}} sets them", said
            )


@contextmanager
def explained() -> Iterator[None]:
    """What vLLM raises, as one line: DataError for what it refuses, ModelError when its processes have ended."""
    try:
        yield
    except Exception as raised:
        cause = _first(raised)
        if isinstance(cause, FtkError):
            raise cause from None
        said = " ".join(str(cause).split())[:300]
        if isinstance(cause, ValueError) or any(one.__name__ == "VLLMClientError" for one in type(cause).__mro__):
            raise DataError(f"vllm: {said}") from cause
        if isinstance(cause, (RuntimeError, OSError)) or type(cause).__module__.startswith("vllm"):
            raise ModelError(f"vllm has stopped: {said}") from cause
        raise


def _first(found: BaseException) -> BaseException:
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
