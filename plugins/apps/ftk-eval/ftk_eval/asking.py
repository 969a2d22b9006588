"""A question as a conversation, in the words that LLaMA-Factory asks with, so that numbers can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ftk import Message

from ftk_eval.question_sets import LETTERS, Question


@dataclass(frozen=True)
class Wording:
    """``subject`` stands before everything, ``answer`` after the choices."""

    subject: str
    answer: str


WORDINGS = {
    "en": Wording("The following are multiple choice questions (with answers) about {}.\n\n", "\nAnswer:"),
    "zh": Wording("以下是中国关于{}考试的单项选择题，请选出其中的正确答案。\n\n", "\n答案："),
}


def answers_of(question: Question, letters: bool) -> tuple[str, ...]:
    """What the model may answer, in the order of the choices."""
    return LETTERS if letters else question.choices


def conversation(
    question: Question, solved: Sequence[Question], subject: str, lang: str, *, letters: bool
) -> tuple[Message, ...]:
    """The solved questions with their answers, then the one that is asked.

    letters: the choices are listed and answered with a letter; without, only the question is asked.
    """
    wording, messages = WORDINGS[lang], list[Message]()
    for one in (*solved, question):
        listed = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, one.choices, strict=True))
        messages.append(Message("user", one.text + (listed if letters else "") + wording.answer))
        messages.append(Message("assistant", answers_of(one, letters)[LETTERS.index(one.answer)]))
    messages[0] = replace(messages[0], content=wording.subject.format(subject) + messages[0].text)
    return tuple(messages[:-1])
