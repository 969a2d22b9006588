"""Which choice a model finds most probable, through the run's template and engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ftk import DataError, Message, PluginError
from ftk_data import renderer
from ftk_data.encoding import Encoder

from ftk_eval.asking import answers_of, conversation
from ftk_eval.question_sets import LETTERS, Question, Subject

if TYPE_CHECKING:
    from ftk.run import Run

Asked = tuple[list[int], list[int]]
"""(tokens that are read, tokens that follow)"""


class Judge:
    """Asks a run's model. ``engine`` is one with ``likelihoods``; raises PluginError for another.

    shortened: how many questions had fewer solved ones before them, because the model reads no more.
    """

    def __init__(self, run: Run, engine: Any, lang: str, *, letters: bool) -> None:
        if not hasattr(engine, "likelihoods"):
            raise PluginError(f"{run.value('infer_backend') or 'this engine'}: gives no log-probabilities of answers")
        self.engine, self.lang, self.letters = engine, lang, letters
        self.template, self.encoder = renderer(run), Encoder(run.tokenizer)
        config = run.model_config
        self.limit = getattr(config.get_text_config(), "max_position_embeddings", None) if config is not None else None
        self.shortened = 0

    def choices(self, subject: Subject, batch_size: int, told: Callable[[int], None]) -> list[str]:
        """The letter of the most probable choice of each question. ``told`` is called with how many more are done."""
        chosen: list[str] = []
        for start in range(0, len(subject.questions), batch_size):
            batch = [self.asked(one, subject) for one in subject.questions[start : start + batch_size]]
            found = iter(self.engine.likelihoods([row for rows in batch for row in rows]))
            for rows in batch:
                # the same length for letters, one token each; texts are compared by their mean
                scores = [sum(value for value, _ in said) / len(said) for said in (next(found) for _ in rows)]
                chosen.append(LETTERS[scores.index(max(scores))])
            told(len(batch))
        return chosen

    def asked(self, question: Question, subject: Subject) -> list[Asked]:
        """What is read and what follows, for each choice, with as many solved questions as the model can read."""
        for num in range(len(subject.solved), -1, -1):
            rows = self._rows(question, subject.solved[:num], subject.name)
            if not self.limit or max(len(read) + len(follows) for read, follows in rows) <= self.limit or not num:
                self.shortened += num < len(subject.solved)
                return rows
        raise AssertionError("no solved question is always tried")

    def _rows(self, question: Question, solved: Sequence[Question], subject: str) -> list[Asked]:
        messages = conversation(question, solved, subject, self.lang, letters=self.letters)
        before = [replace(message, trained=False) for message in messages]
        answers = [Message("assistant", text, trained=True) for text in answers_of(question, self.letters)]
        batch = self.encoder.rows([self.template.render([*before, answer])[-1] for answer in answers])
        edges = batch.starts.tolist()
        rows = [batch.ids_T[start:end].tolist() for start, end in pairwise(edges)]
        if self.letters:
            return _at_the_letter(rows)
        firsts = [int(batch.trained_T[start:end].argmax()) for start, end in pairwise(edges)]
        return [(row[:first], row[first:]) for row, first in zip(rows, firsts, strict=True)]


def _at_the_letter(rows: Sequence[list[int]]) -> list[Asked]:
    """Each row up to where the four differ first, and its next token: the letter, in the text that it stands in.

    What a template writes before every answer, for instance an empty thought, is thus read and not judged.
    Raises DataError when two letters begin with the same token.
    """
    shared = next((place for place, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1), None)
    if shared is None or len({row[shared] for row in rows}) < len(rows):
        raise DataError("the tokens of the letters A, B, C, D do not differ. eval_choice: text")
    return [(row[:shared], [row[shared]]) for row in rows]
