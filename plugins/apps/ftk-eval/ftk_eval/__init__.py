"""``ftk eval``: multiple choice by log-probability, with questions from a local folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ftk
from ftk import Replaced, option, options
from ftk_data import TemplateOptions

GONE = (Replaced("download_mode", note="questions are read from task_dir; nothing is downloaded"),)


@options(replaced=GONE)
class EvaluationOptions:
    """Which questions, and how they are asked."""

    task: str | None = option(
        None, help="A set of questions and its split, for instance mmlu_test, ceval_validation or cmmlu_test."
    )
    task_dir: str = option("evaluation", help="The folder that holds a folder for each set of questions.")
    batch_size: int = option(4, help="Questions that are asked at once.", minimum=1)
    n_shot: int = option(5, help="Solved questions of the dev split before each one.", minimum=0)
    lang: Literal["en", "zh"] = option("en", help="The language of the words around the questions.")
    save_dir: str | None = option(None, help="Where results.json goes; unset keeps nothing.")
    eval_choice: Literal["letter", "text"] = option(
        "letter",
        help="letter: the most probable next token among A, B, C and D. text: the most probable answer as a whole, by "
        "its mean log-probability per token, asked without letters.",
    )


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "eval",
        target="ftk_eval.command:evaluate",
        options=(EvaluationOptions, TemplateOptions),
        uses=("model_loader", "quantizer", "model_patch", "adapter", "template", "media", "engine"),
        summary="Multiple choice by log-probability: MMLU, CMMLU, C-Eval.",
    )
