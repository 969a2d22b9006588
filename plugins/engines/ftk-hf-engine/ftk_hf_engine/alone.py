"""Answers by ``model.generate``, a batch at a time: for models whose answers cannot be joined, for media, for beams.

The tokens are picked by the same code as everywhere in this engine: a logits processor picks and leaves nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import torch
from ftk import DataError, Reply, Sampling
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from ftk_hf_engine.answers import Answer, reply_of
from ftk_hf_engine.batching import Answering
from ftk_hf_engine.picking import pick

Inputs = Mapping[str, torch.Tensor]


class Alone:
    """Makes answers one call after the other; ``ends``: the tokens at which beams end."""

    def __init__(self, model: Any, pad: int, ends: Sequence[int], answering: Answering) -> None:
        self.model, self.pad, self.ends, self.answering = model, pad, ends, answering

    def answer(self, answers: Sequence[Answer], inputs: Inputs) -> list[Reply]:
        """The replies to a batch, in order. All are sampled in one way, and by one adapter."""
        sampling = answers[0].picker.sampling
        if sampling.num_beams > 1:
            self._search(answers, inputs, sampling)
        else:
            self._generate(answers, inputs)
        return [reply_of(answer) for answer in answers]

    def stream(self, answer: Answer, inputs: Inputs) -> Generator[str, None, Reply]:
        """The pieces of one answer as they come; those of a beam search at its end."""
        if answer.picker.sampling.num_beams > 1:
            reply = self.answer([answer], inputs)[0]
            yield reply.text
            return reply
        news: SimpleQueue[BaseException | None] = SimpleQueue()

        def work() -> None:
            try:
                self._generate([answer], inputs, news)
                news.put(None)
            except BaseException as error:  # handed to the thread that waits
                news.put(error)

        thread = threading.Thread(target=work, name="ftk-generate", daemon=True)
        thread.start()
        try:
            while not answer.ended or answer.ready:
                if answer.ready:
                    yield answer.ready.popleft()
                elif (error := news.get()) is not None:
                    raise error
        finally:
            if not answer.ended:
                answer.error = GeneratorExit("nobody waits for this answer any more")
            thread.join()
        return reply_of(answer)

    def _generate(self, answers: Sequence[Answer], inputs: Inputs, news: SimpleQueue[Any] | None = None) -> None:
        config = GenerationConfig(
            max_new_tokens=max(answer.room for answer in answers), do_sample=False, pad_token_id=self.pad,
            use_cache=self._uses_cache(), temperature=1.0, top_p=1.0, top_k=50,
        )  # fmt: skip
        with self.answering(answers[0].adapter):
            self.model.generate(
                **inputs,
                generation_config=config,
                logits_processor=LogitsProcessorList([Picked(answers, self.pad, news)]),
                stopping_criteria=StoppingCriteriaList([Ended(answers)]),
            )

    def _search(self, answers: Sequence[Answer], inputs: Inputs, sampling: Sampling) -> None:
        asked = (sampling.presence_penalty, sampling.frequency_penalty, sampling.logprobs is not None, sampling.schema)
        if any(asked):
            raise DataError(
                "beam search knows no presence_penalty, frequency_penalty, logprobs or schema. num_beams: 1"
            )
        values: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 50}  # greedy: what means nothing set
        if sampling.do_sample:
            values = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        config = GenerationConfig(
            max_new_tokens=max(answer.room for answer in answers), do_sample=sampling.do_sample,
            num_beams=sampling.num_beams, length_penalty=sampling.length_penalty, pad_token_id=self.pad,
            repetition_penalty=sampling.repetition_penalty, use_cache=self._uses_cache(),
            eos_token_id=sorted({*self.ends, *sampling.stop_ids}) or None, **values,
        )  # fmt: skip
        with self.answering(answers[0].adapter), torch.random.fork_rng(enabled=sampling.seed is not None):
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            tokens_BT = self.model.generate(**inputs, generation_config=config)
        for answer, tokens in zip(answers, tokens_BT[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            for token in tokens:
                if not answer.ended:
                    answer.picker.tokens.append(token)
                    answer.take(token)
            if not answer.ended:
                answer.finish()

    def _uses_cache(self) -> bool:
        return getattr(getattr(self.model, "generation_config", None), "use_cache", True) is not False


class Picked(LogitsProcessor):  # type: ignore[misc]
    """Picks the next token of each answer and leaves the greedy search nothing else."""

    def __init__(self, answers: Sequence[Answer], pad: int, news: SimpleQueue[Any] | None) -> None:
        self.answers, self.pad, self.news = answers, pad, news

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores (B, V) → the same shape, 0 at the token that was picked and -inf elsewhere."""
        going = [number for number, answer in enumerate(self.answers) if not answer.ended]
        chosen = [self.pad] * len(self.answers)
        for number, token in zip(going, pick(scores[going], [self.answers[one].picker for one in going]), strict=True):
            chosen[number] = token
            self.answers[number].take(token)
        if self.news is not None:
            self.news.put(None)
        return torch.full_like(scores, -torch.inf).scatter_(1, torch.tensor(chosen, device=scores.device)[:, None], 0.0)


class Ended(StoppingCriteria):  # type: ignore[misc]
    """Ends the rows whose answers have ended, or that nobody waits for."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = answers

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([answer.ended for answer in self.answers], device=input_ids.device)
