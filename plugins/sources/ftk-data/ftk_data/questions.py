"""The conversations of a split as prompts with the answer that their data set gives, for engines that answer them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ftk import ChatExample, ConfigError, Message, Prompt

from ftk_data import report, rows
from ftk_data.options import DataOptions
from ftk_data.reading import Reader
from ftk_data.rendering import options_of
from ftk_data.stages import CHAT

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_data.rendering import Renderer


class Question(NamedTuple):
    """A conversation up to its last answer, and that answer; None where the data set has none.

    dataset: the name of its data set. where: ``name: file.jsonl:17``, for errors.
    """

    prompt: Prompt
    answer: Message | None
    dataset: str
    where: str


def questions(run: Run, split: str) -> list[Question]:
    """All those of ``train`` or ``eval``, in the order of the data: earlier answers of a conversation are given.

    ``eval`` is ``eval_dataset`` or what ``val_size`` sets aside: the very examples that no training row is made of.
    ``max_samples`` counts; ``cutoff_len`` does not. Raises DataError for a malformed row, see ``on_bad_row``, and
    ConfigError where what is set aside is not known: with ``streaming`` or ``tokenized_path``.
    """
    options = options_of(run, DataOptions)
    own = run.datasets(split)
    aside: dict[str, set[int]] = {}
    if split == "eval" and not own:
        if not options.val_size:
            return []
        own, aside = run.datasets("train"), _set_aside(run, options)
    made: list[Question] = []
    for dataset in own:
        reader = Reader(dataset, ChatExample, options, run.seed)
        numbers = aside.get(dataset.name, set()) if aside else None
        made += _read(reader, numbers)
    return made


def _set_aside(run: Run, options: DataOptions) -> dict[str, set[int]]:
    for key in ("streaming", "tokenized_path"):
        if getattr(options, key):
            raise ConfigError(
                f"{run.plan.where(key)}: it is not known which conversations val_size sets aside. Give an eval_dataset"
            )
    found: dict[str, set[int]] = {}
    for name, number in rows.examples_of(run, "eval", CHAT, options):
        found.setdefault(name, set()).add(number)
    return found


def _read(reader: Reader, numbers: set[int] | None) -> Iterator[Question]:
    for index, example in reader.between(0, sys.maxsize):
        if numbers is None or index in numbers:
            yield _question(example, reader, index)
    report.warn(reader.dataset.name, Counter(reader.counts), reader.counts["rows"])


def _question(example: ChatExample, reader: Reader, index: int) -> Question:
    messages, answer = example.messages, None
    last = max((n for n, one in enumerate(messages) if one.role == "assistant"), default=-1)
    if last >= 0 and last == len(messages) - 1:
        messages, answer = messages[:last], messages[last]
    return Question(Prompt(messages, example.tools), answer, reader.dataset.name, reader.where(index))


def answer_text(renderer: Renderer, question: Question, special: Sequence[str] = ()) -> str:
    """The answer as the model would have to write it: with reasoning and calls, without what ends it.

    special: tokens that are left out of what engines return, too. Raises DataError where the template cannot write it.
    """
    if question.answer is None:
        return ""
    before = [replace(message, trained=False) for message in question.prompt.messages]
    row = renderer.render([*before, replace(question.answer, trained=True)], question.prompt.tools)[-1]
    text = "".join(segment.text for segment in row if segment.trained)
    for end in renderer.stop:
        text = text.removesuffix(end)
    for token in special:
        text = text.replace(token, "")
    return text
