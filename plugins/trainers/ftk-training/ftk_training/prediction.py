"""Answers that are compared with a data set's: the options, and the kind of feature that a metric is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import ftk
from ftk import Replaced, option, options

GONE = (
    Replaced("generation_max_length", note="an answer has at most max_new_tokens tokens; set that"),
    Replaced("generation_num_beams", by="num_beams"),
    Replaced("generation_config", note="set temperature, top_p, num_beams and their like in the YAML"),
)


class Prediction(NamedTuple):
    """A line of ``generated_predictions.jsonl``: the prompt as the model reads it, its answer, the data set's."""

    prompt: str
    predict: str
    label: str


@dataclass(frozen=True, eq=False, repr=False)
class Metric(ftk.Spec):
    """A comparison of answers with those of a data set. Chosen by ``metrics``, any number.

    target: ``compare(predictions) -> {name: number}`` for a list of :class:`Prediction`. The names get ``predict_`` or
        ``eval_`` before them; a name that ends in ``loss`` is better the smaller it is.
    """

    kind: ClassVar[str] = "metric"


@options(replaced=GONE)
class PredictionOptions:
    """Whether prompts are answered in evaluations and predictions, and how answers are judged."""

    predict_with_generate: bool = option(
        False, help="Answer the prompts of evaluations and of do_predict, and compare the answers with the data's."
    )
    metrics: tuple[str, ...] = option(("bleu", "rouge"), help="How answers are compared with the data's.")
    generate_samples: int | None = option(
        None, help="Evaluations while training answer only so many prompts, the first; unset is all.", minimum=1
    )
