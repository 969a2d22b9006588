"""Answering the prompts of a data set with an engine, in batches and in order, over any number of processes.

Nothing here imports torch, so an engine that brings its own can be used without it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ftk import Reply
from ftk.kernel_options import SamplingOptions
from ftk_data import renderer
from ftk_data.questions import Question, answer_text

from ftk_training.prediction import Metric, Prediction
from ftk_training.predictions_file import PredictionsFile

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk.types import RunningEngine


class Processes(NamedTuple):
    """Which of how many processes this is, and how each learns what all have made."""

    rank: int = 0
    world: int = 1

    def together(self, mine: list[Any]) -> list[Any]:
        """The lists of all processes one after the other. Every process must call it."""
        if self.world == 1:
            return mine
        from torch import distributed

        found: list[list[Any]] = [[] for _ in range(self.world)]
        distributed.all_gather_object(found, mine)
        return [one for part in found for one in part]


def processes() -> Processes:
    """Those that a launcher has started, made a group here, where nobody has made one yet."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    from accelerate import PartialState

    state = PartialState()
    return Processes(state.process_index, state.num_processes)


class Answering:
    """Questions and how they are answered.

    A batch is sampled with the seed of the run plus the number of its first prompt, so answers do not depend on where
    a process began, and are the same again with the same batch size and number of processes.
    """

    def __init__(self, run: Run, questions: Sequence[Question], batch_size: int, processes: Processes) -> None:
        self.run, self.questions = run, questions
        self.batch_size, self.processes = batch_size, processes
        self.sampling = run.options(SamplingOptions).sampling()
        self.renderer = renderer(run)
        special = [str(token) for token in run.tokenizer.all_special_tokens]
        self.special = special if self.sampling.skip_special_tokens else []

    @property
    def rows_at_once(self) -> int:
        """Prompts that all processes answer together."""
        return self.batch_size * self.processes.world

    def from_row(self, engine: RunningEngine, first: int) -> Iterator[tuple[list[Prediction], int]]:
        """Batches of answers from row ``first`` on, each with the number of tokens that were made for it."""
        for start in range(first, len(self.questions), self.rows_at_once):
            own = start + self.processes.rank * self.batch_size
            asked = self.questions[own : min(own + self.batch_size, start + self.rows_at_once)]
            replies: list[Reply] = []
            if asked:
                sampling = replace(self.sampling, seed=self.run.seed + own)
                replies = engine.generate([question.prompt for question in asked], sampling)
            found = self.processes.together([(reply.text, reply.num_tokens) for reply in replies])
            batch = self.questions[start : start + self.rows_at_once]
            yield [self._line(*each) for each in zip(batch, found, strict=True)], sum(num for _, num in found)

    def all(self, engine: RunningEngine) -> list[Prediction]:
        """The answers to all questions."""
        return [line for lines, _ in self.from_row(engine, 0) for line in lines]

    def into(
        self, file: PredictionsFile, make_engine: Callable[[], RunningEngine], *, anew: bool = False
    ) -> list[Prediction]:
        """The same through a file: goes on where an interrupted process stopped, and says how quick it is.

        The engine is made when something is left to answer, and closed. Of several processes the first one writes, and
        tells the others where to begin.
        """
        first = self.processes.rank == 0
        done = self.processes.together([file.open(self.rows_at_once, anew=anew)] if first else [])[0]
        throughput = Throughput(done, len(self.questions), shown=first)
        if done < len(self.questions):
            engine = make_engine()
            try:
                for lines, num_tokens in self.from_row(engine, done):
                    if first:
                        file.append(lines)
                    throughput.add(len(lines), num_tokens)
            finally:
                engine.close()
        throughput.close()
        return file.predictions

    def _line(self, question: Question, found: tuple[str, int]) -> Prediction:
        prompt = self.renderer.prompt_text(question.prompt.messages, question.prompt.tools)
        return Prediction(prompt, found[0], answer_text(self.renderer, question, self.special))


def compared(run: Run, predictions: Sequence[Prediction]) -> dict[str, float]:
    """What the run's metrics make of answers: name → number; empty without predict_with_generate or predictions."""
    made: dict[str, float] = {}
    for spec in run.plan.chosen.get(Metric.kind, ()) if predictions else ():
        found: Mapping[str, float] = spec.load()(list(predictions))
        made |= {name: round(float(value), 4) for name, value in found.items()}
    return made


def facts_of(run: Run, questions: Sequence[Question], split: str, **more: Any) -> dict[str, Any]:
    """What answers depend on, for :class:`ftk_training.predictions_file.PredictionsFile`."""
    keys = ("model_name_or_path", "adapter_name_or_path", "template", "infer_backend", "quantization_bit", "seed")
    sampling, adapters = run.options(SamplingOptions), run.value("adapter_name_or_path")
    return {
        **{key: run.value(key) for key in keys},
        **{key: getattr(sampling, key) for key in vars(sampling)},
        "data": {one.name: one.open().fingerprint() for one in run.datasets(split) or run.datasets("train")},
        "weights": [_weights(Path(str(name))) for name in (run.value("model_name_or_path"), *adapters)],
        "prompts": len(questions),
        **more,
    }


def _weights(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the files of weights in a folder; none of what is no folder."""
    found = ((path.name, path.stat()) for path in sorted(folder.glob("*.safetensors")))
    return [(name, facts.st_size, facts.st_mtime_ns) for name, facts in found]


class Throughput:
    """One line about how far it is and how quick: on a terminal the same again and again, elsewhere now and then."""

    EVERY = 10.0
    """Seconds between lines that are kept."""

    def __init__(self, done: int, total: int, *, shown: bool = True) -> None:
        self.first, self.done, self.total, self.num_tokens = done, done, total, 0
        self.shown, self.live = shown, sys.stderr.isatty()
        self.began = self.told = time.monotonic()
        if shown and done:
            print(f"{done} of {total} prompts were answered before; going on", file=sys.stderr)

    def add(self, rows: int, num_tokens: int) -> None:
        self.done, self.num_tokens = self.done + rows, self.num_tokens + num_tokens
        now = time.monotonic()
        if self.shown and (self.live or now - self.told > self.EVERY):
            self.told = now
            print(self.line(now), end="\r" if self.live else "\n", file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        """``answered 24 of 100 prompts, 1.5 prompts/s, 230 tokens/s, 0:00:50 left``."""
        seconds = max(now - self.began, 1e-9)
        speed = (self.done - self.first) / seconds
        text = f"answered {self.done} of {self.total} prompts, {speed:.1f} prompts/s"
        text += f", {self.num_tokens / seconds:.0f} tokens/s"
        left = round((self.total - self.done) / speed) if speed else 0
        return text + (f", {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left" if left else "")

    def close(self) -> None:
        if self.shown and self.done > self.first:
            print(self.line(time.monotonic()), file=sys.stderr)
