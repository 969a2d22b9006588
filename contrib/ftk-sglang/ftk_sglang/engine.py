"""The engine: prompts become tokens as in training, a server makes them into answers.

Requests and answers are those of SGLang's native ``/generate`` (SGLang documentation, "Native APIs"): ``input_ids``,
``sampling_params``, ``lora_path``, ``return_logprob``, ``top_logprobs_num``, ``image_data`` and its like; ``text``,
``output_ids`` and ``meta_info`` with ``finish_reason``, ``output_token_logprobs`` and ``output_top_logprobs``.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ftk import DataError, ModelError, Prompt, Reply, Sampling
from ftk_data.asking import Asked, Asking
from ftk_peft.serving import Served

from ftk_sglang.sampling import params_of
from ftk_sglang.server import Client, Server

if TYPE_CHECKING:
    from ftk_sglang.showing import Showing

MOST = 256
"""Requests of one call that are sent at once; the server has a queue of its own."""


class SglangEngine:
    """A :class:`ftk.types.RunningEngine`. server: one of our own, which ends with the engine.

    answers_by: name of a request's adapter, None for the run's own, → ``lora_path`` of the server.
    """

    def __init__(
        self, client: Client, server: Server | None, asking: Asking, loads: Served,
        answers_by: Mapping[str | None, str], showing: Showing | None = None,
    ) -> None:  # fmt: skip
        self._client, self._server, self._asking, self._loads = client, server, asking, loads
        self._answers_by, self._showing = answers_by, showing
        self.adapters = tuple(loads.named)
        self._closed = False

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Reply]:
        """Answer every prompt, in order. Raises DataError for what cannot be asked, before anything is answered."""
        jobs = [self._job(prompt, sampling, number) for number, prompt in enumerate(prompts)]
        if not jobs:
            return []
        with ThreadPoolExecutor(min(len(jobs), MOST), thread_name_prefix="sglang") as pool:
            found = [pool.submit(self._client.generate, body) for _, body in jobs]
            try:
                answers = [one.result() for one in found]
            except BaseException:
                for one in found:
                    one.cancel()
                raise
        return [self._reply(asked, answer, sampling) for (asked, _), answer in zip(jobs, answers, strict=True)]

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[str, None, Reply]:
        """Answer one prompt piece by piece. Closing the iterator ends the server's work on it."""
        asked, body = self._job(prompt, sampling, 0)
        said, answer = "", None
        for event in self._client.stream(body):
            # each event has the whole text so far, without the stop string at the end, but with half of one before
            answer, text = event, certain(str(event.get("text", "")), body["sampling_params"]["stop"])
            if len(text) > len(said):
                piece, said = text[len(said) :], text
                yield piece
        if answer is None:
            raise ModelError(f"{self._client.where}: the server at {self._client.url} says nothing")
        reply = self._reply(asked, answer, sampling)
        if len(reply.text) > len(said):
            yield reply.text[len(said) :]
        return reply

    def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """The mean natural log-probability per token of each conversation's last turn, its stop token included.

        Raises DataError when a conversation does not end with an answer.
        """
        return [self._score(self._asking.answered(prompt)) for prompt in prompts]

    def close(self) -> None:
        """End the server, if it is our own. Calling it twice is harmless."""
        self._closed = True
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._loads.close()

    def _job(self, prompt: Prompt, sampling: Sampling, number: int) -> tuple[Asked, dict[str, Any]]:
        if self._closed:
            raise ModelError("sglang: is closed")
        asked = self._asking.asked(prompt)
        room = self._asking.room(asked, sampling.max_new_tokens)
        body = self._body(asked, self._chosen(sampling.adapter))
        body["sampling_params"] = params_of(sampling, self._asking.ends, self._asking.stops, room, number)
        if sampling.logprobs is not None:
            body |= {"return_logprob": True, "top_logprobs_num": sampling.logprobs, "logprob_start_len": -1}
        return asked, body

    def _body(self, asked: Asked, adapter: str | None) -> dict[str, Any]:
        body: dict[str, Any] = {"input_ids": asked.short}
        if adapter is not None:
            body["lora_path"] = adapter
        if asked.media and self._showing is not None:
            body |= self._showing.data(asked.media)
        return body

    def _chosen(self, adapter: str | None) -> str | None:
        if adapter is not None and adapter not in self._answers_by:
            known = ", ".join(self.adapters) or "none; lora_modules names them"
            raise DataError(f"adapter {adapter}: is not there. There are {known}")
        return self._answers_by.get(adapter)

    def _reply(self, asked: Asked, answer: Mapping[str, Any], sampling: Sampling) -> Reply:
        try:
            told = answer["meta_info"]
            reason = told["finish_reason"]
            text, ids = str(answer["text"]), answer.get("output_ids")
            if not sampling.skip_special_tokens and isinstance(end := reason.get("matched"), int):
                text += str(self._asking.tokenizer.decode([end]))  # the server leaves it out
            meta: dict[str, Any] = {} if ids is None else {"tokens": list(ids)}
            if sampling.logprobs is not None:
                meta["logprobs"] = _logprobs(told, sampling.logprobs)
                meta.setdefault("tokens", [one[0][0] for one in meta["logprobs"]])
            num = int(told["completion_tokens"])
        except (KeyError, TypeError, IndexError) as cause:
            raise ModelError(f"{self._client.where}: the server's answer lacks {cause}; is it SGLang's?") from cause
        if reason["type"] == "abort":
            raise ModelError(f"sglang: the answer was given up: {' '.join(str(reason.get('message')).split())[:300]}")
        return Reply(text, "stop" if reason["type"] == "stop" else "length", len(asked.ids), num, meta)

    def _score(self, asked: Asked) -> float:
        if asked.media:
            raise DataError("sglang: a conversation with media cannot be scored. infer_backend: huggingface can")
        first = asked.scored.index(True)
        body = self._body(asked, self._chosen(None)) | {
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            "logprob_start_len": max(first - 1, 0),
        }
        told = self._client.generate(body)["meta_info"]["input_token_logprobs"]
        # the last ones are those of the conversation's end, whether or not the server tells of the first one, too
        said = told[-(len(asked.ids) - first) :]
        values = [float(one[0]) for one, counts in zip(said, asked.scored[first:], strict=True) if counts]
        return sum(values) / len(values)


def certain(text: str, stops: Sequence[str]) -> str:
    """The text without an end that may be the beginning of a stop string."""
    starts = (stop[:size] for stop in stops for size in range(1, len(stop)))
    return text[: len(text) - max((len(one) for one in starts if text.endswith(one)), default=0)]


def _logprobs(told: Mapping[str, Any], count: int) -> list[tuple[tuple[int, float], ...]]:
    """SGLang tells (log-probability, token, text) for each token, and a list of them for the most likely ones."""
    own = [(int(one[1]), float(one[0])) for one in told["output_token_logprobs"]]
    best = told.get("output_top_logprobs") or []
    others = [[(int(one[1]), float(one[0])) for one in place or ()] for place in best] if count else []
    return [(one, *(others[number] if number < len(others) else ())) for number, one in enumerate(own)]
