"""Answers by ``model.generate``: whole batches, or one answer token by token.

Shapes: B answers, T tokens of prompt and answer, V words of the vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import torch
from ftk import DataError, Prompt, Reply, Sampling
from ftk_data import renderer
from ftk_data.prompts import PromptEncoder
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ftk_hf_engine.pieces import Pieces

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk.types import Media, MediaEncoder


def build(run: Run, model: Any) -> HuggingfaceEngine:
    """The engine on a model that is loaded. A model on the CPU moves to the accelerator unless ``use_cpu``."""
    on_cpu = "use_cpu" in run.plan.registry.options and run.value("use_cpu")
    placed = model.device.type != "cpu" or getattr(model, "hf_device_map", None) is not None
    if torch.accelerator.is_available() and not on_cpu and not placed:
        model = model.to(torch.accelerator.current_accelerator())
    media = run.media if run.processor is not None else None  # without one a model that sees can still read
    return HuggingfaceEngine(model, run.tokenizer, renderer(run), media)


class HuggingfaceEngine:
    """A :class:`ftk.types.RunningEngine`. ``media`` shows the model what a prompt holds beside text.

    Special tokens that stand in a user's text are read as special tokens, as in training.
    An answer ends with the tokenizer's end token, the model's own ends, the template's stops or ``sampling.stop``.
    What ``Sampling`` does not name follows the model's ``generation_config``.
    One call runs at a time; more wait. A batch is as large as the caller makes it.
    """

    def __init__(self, model: Any, tokenizer: Any, template: Any, media: MediaEncoder | None = None) -> None:
        self.model, self.tokenizer, self.template, self.media = model, tokenizer, template, media
        self._turn = threading.Lock()
        self._prompts = PromptEncoder(template, tokenizer, media)
        added = tokenizer.get_added_vocab()
        self._stops = tuple(stop for stop in template.stop if stop not in added)
        own = model.generation_config.eos_token_id if model.generation_config else None
        ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
        self._ends = sorted({*ends, *(added[stop] for stop in template.stop if stop in added)} - {None})
        self._limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Reply]:
        """Answer every prompt, in order, as one batch. Raises DataError for a prompt longer than the model reads."""
        if not prompts:
            return []
        inputs = self._inputs(prompts)
        width = inputs["input_ids"].shape[1]
        with self._answering(sampling):
            tokens_BT = self.model.generate(**inputs, **self._arguments(sampling, width))
        return [
            self._reply(tokens[width:].tolist(), int(mask.sum()), sampling)
            for tokens, mask in zip(tokens_BT, inputs["attention_mask"], strict=True)
        ]

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
        """Answer one prompt piece by piece. Closing the iterator stops the model after its current token.

        Beam search knows its answer only at the end, so it comes as one piece.
        """
        if sampling.num_beams > 1:
            yield self.generate([prompt], sampling)[0].text
            return
        inputs = self._inputs([prompt])
        tokens: SimpleQueue[int | BaseException | None] = SimpleQueue()
        stopping = threading.Event()

        def work() -> None:
            try:
                arguments = self._arguments(sampling, inputs["input_ids"].shape[1], Asked(stopping))
                with self._answering(sampling):
                    self.model.generate(**inputs, **arguments, streamer=Streamer(tokens))
                tokens.put(None)
            except BaseException as error:  # handed to the thread that waits for tokens
                tokens.put(error)

        thread = threading.Thread(target=work, name="ftk-generate", daemon=True)
        thread.start()
        try:
            yield from self._received(tokens, sampling)
        finally:
            stopping.set()
            thread.join()

    def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """The mean natural log-probability per token of each conversation's last turn, its stop token included.

        Raises DataError when a conversation does not end with an answer.
        """
        return [self._score(prompt) for prompt in prompts]

    def close(self) -> None:
        """Forget the model, so that its memory can be freed. Calling it twice is harmless."""
        self.model = None

    def _inputs(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        shown = self._prompts.shown([(prompt.messages, prompt.tools) for prompt in prompts])
        rows = [row for row, _ in shown]
        longest = max(map(len, rows))
        if self._limit and longest >= self._limit:
            raise DataError(f"the prompt has {longest} tokens, but the model reads {self._limit}. Shorten it")
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        ids_BT = [[pad] * (longest - len(row)) + row for row in rows]
        mask_BT = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        made = {"input_ids": torch.tensor(ids_BT), "attention_mask": torch.tensor(mask_BT)}
        return self._placed(made, [media for _, media in shown])

    def _placed(self, batch: dict[str, torch.Tensor], media: Sequence[Sequence[Media]]) -> dict[str, torch.Tensor]:
        """The batch with what it shows, where the model is; pixels and sounds in the type of its weights."""
        if self.media is not None and any(media):
            batch = {**batch, **self.media.encode(batch, media)}
        types = {name: self.model.dtype if one.is_floating_point() else one.dtype for name, one in batch.items()}
        return {name: tensor.to(self.model.device, types[name]) for name, tensor in batch.items()}

    def _arguments(self, sampling: Sampling, width: int, *criteria: StoppingCriteria) -> dict[str, Any]:
        room = self._limit - width if self._limit else sampling.max_new_tokens
        values: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 50}  # greedy: what means nothing set
        if sampling.do_sample:
            values = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        if sampling.num_beams > 1:
            values["length_penalty"] = sampling.length_penalty
        config = GenerationConfig(
            max_new_tokens=min(sampling.max_new_tokens, room),
            do_sample=sampling.do_sample,
            num_beams=sampling.num_beams,
            repetition_penalty=sampling.repetition_penalty,
            eos_token_id=self._ends or None,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=getattr(getattr(self.model, "generation_config", None), "use_cache", True) is not False,
            **values,
        )
        stops = self._all_stops(sampling)
        if stops:
            criteria = (*criteria, Said(self.tokenizer, stops, sampling.skip_special_tokens, width))
        return {"generation_config": config, "stopping_criteria": StoppingCriteriaList(criteria)}

    @contextmanager
    def _answering(self, sampling: Sampling) -> Iterator[None]:
        """The model for one call alone, in evaluation mode, with the random numbers of the seed; then as it was."""
        with self._turn, torch.random.fork_rng(enabled=sampling.seed is not None):
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            was_training = self.model.training
            self.model.eval()
            try:
                yield
            finally:
                self.model.train(was_training)

    def _received(self, tokens: SimpleQueue[int | BaseException | None], sampling: Sampling) -> Iterator[str]:
        pieces = self._pieces(sampling)
        while not pieces.stopped and (token := tokens.get()) is not None:
            if isinstance(token, BaseException):
                raise token
            if piece := pieces.push(token):
                yield piece
        if rest := pieces.finish():
            yield rest

    def _reply(self, tokens: list[int], num_prompt_tokens: int, sampling: Sampling) -> Reply:
        pieces = self._pieces(sampling)
        text = pieces.text(tokens)
        finish, said = ("stop" if pieces.stopped else "length"), tokens[: pieces.count]
        return Reply(text, finish, num_prompt_tokens, pieces.count, {"tokens": said})

    def _pieces(self, sampling: Sampling) -> Pieces:
        return Pieces(self.tokenizer, self._ends, self._all_stops(sampling), sampling.skip_special_tokens)

    def _all_stops(self, sampling: Sampling) -> tuple[str, ...]:
        return (*self._stops, *(stop for stop in sampling.stop if stop))

    @torch.inference_mode()
    def _score(self, prompt: Prompt) -> float:
        if not prompt.messages or prompt.messages[-1].role != "assistant":
            raise DataError("score: the conversation does not end with an answer")
        before = [replace(message, trained=False) for message in prompt.messages[:-1]]
        row = self.template.render([*before, replace(prompt.messages[-1], trained=True)], prompt.tools)[-1]
        row = self._prompts.with_media(row, prompt.messages)
        encoded = self.tokenizer([segment.text for segment in row], add_special_tokens=False)["input_ids"]
        tokens = [token for part in encoded for token in part]
        scored = [segment.trained for segment, part in zip(row, encoded, strict=True) for _ in part]
        media = [segment.media for segment in row if segment.media is not None]
        inputs = self._placed({"input_ids": torch.tensor([tokens])}, [media])
        with self._answering(Sampling()):
            logits_TV = self.model(**inputs, use_cache=False).logits[0, :-1]
        places = torch.tensor(scored[1:], device=logits_TV.device).nonzero()[:, 0]
        log_probs_TV = logits_TV[places].float().log_softmax(-1)
        said = inputs["input_ids"][0, 1:].to(logits_TV.device)[places]
        return float(log_probs_TV.gather(1, said[:, None]).mean())


class Streamer(BaseStreamer):
    """Puts each new token into a queue."""

    def __init__(self, tokens: SimpleQueue[Any]) -> None:
        self.tokens = tokens
        self.prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self.prompt_seen:
            self.tokens.put(int(value.reshape(-1)[0]))
        self.prompt_seen = True  # the first call brings the prompt

    def end(self) -> None: ...


class Asked(StoppingCriteria):
    """Ends generation when somebody asks for it."""

    def __init__(self, stopping: threading.Event) -> None:
        self.stopping = stopping

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.stopping.is_set(), device=input_ids.device)


class Said(StoppingCriteria):
    """Ends an answer that holds a stop string. Without state, because beam search reorders the rows."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], skip: bool, width: int) -> None:
        self.tokenizer, self.stops, self.skip, self.width = tokenizer, stops, skip, width
        # a token is a byte or more, so a stop that has just been completed lies within this many
        self.reach = max(len(stop.encode()) for stop in stops) + 8

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        tails_BT = input_ids[:, max(self.width, input_ids.shape[1] - self.reach) :]
        texts = self.tokenizer.batch_decode(tails_BT, self.skip, clean_up_tokenization_spaces=False)
        done = [any(stop in text for stop in self.stops) for text in texts]
        return torch.tensor(done, device=input_ids.device)
