"""BLEU of answers: of each by its characters, as LLaMA-Factory reports it, and of all together, as sacrebleu does."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftk import hookimpl
from ftk_training import Metric

if TYPE_CHECKING:
    from ftk_training.prediction import Prediction

ORDER = 4
"""The longest n-gram that counts."""


@hookimpl
def ftk_metrics() -> Iterator[Metric]:
    yield Metric("bleu", target="ftk_bleu:compare", summary="BLEU-4 by characters, and BLEU of the whole set")


def compare(predictions: Sequence[Prediction]) -> dict[str, float]:
    """``bleu-4``: the mean of each answer's, 0 to 100. ``bleu``: that of the whole set of answers, 0 to 100."""
    each = [sentence_bleu(list(one.predict), list(one.label)) for one in predictions]
    pairs = [(words(one.predict), words(one.label)) for one in predictions]
    return {"bleu-4": 100 * sum(each) / len(each), "bleu": 100 * corpus_bleu(pairs)}


def matches(predicted: Sequence[str], wanted: Sequence[str]) -> list[tuple[int, int]]:
    """For n from 1 to 4: how many n-grams of ``predicted`` are in ``wanted``, each at most as often; and how many."""
    found = []
    for size in range(1, ORDER + 1):
        mine, theirs = (Counter(zip(*(text[n:] for n in range(size)), strict=False)) for text in (predicted, wanted))
        found.append(((mine & theirs).total(), max(0, len(predicted) - size + 1)))
    return found


def brevity(predicted: int, wanted: int) -> float:
    """What too short an answer is multiplied with (Papineni et al. 2002, section 2.2.2)."""
    if not predicted:
        return 0.0
    return 1.0 if predicted > wanted else math.exp(1 - wanted / predicted)


def sentence_bleu(predicted: Sequence[str], wanted: Sequence[str]) -> float:
    """0 to 1, smoothed by method 3 of Chen and Cherry (2014): the k-th n without a match counts 1 / 2^k of one."""
    if not predicted or not wanted:
        return 0.0
    found, halves, logs = matches(predicted, wanted), 1.0, 0.0
    if not found[0][0]:
        return 0.0
    for right, total in found:
        if not right:
            halves /= 2
        logs += math.log((right or halves) / max(total, 1)) / ORDER
    return brevity(len(predicted), len(wanted)) * math.exp(logs)


def corpus_bleu(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> float:
    """0 to 1, over the n-grams of all pairs of (predicted, wanted), smoothed in the same way ("exp" in sacrebleu)."""
    rights, totals = [0] * ORDER, [0] * ORDER
    for predicted, wanted in pairs:
        for size, (right, total) in enumerate(matches(predicted, wanted)):
            rights[size] += right
            totals[size] += total
    if not any(rights) or not all(totals):
        return 0.0
    halves, logs = 1.0, 0.0
    for right, total in zip(rights, totals, strict=True):
        if not right:
            halves /= 2
        logs += math.log((right or halves) / total) / ORDER
    lengths = [sum(len(pair[side]) for pair in pairs) for side in (0, 1)]
    return brevity(*lengths) * math.exp(logs)


APART = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
"""Punctuation becomes words, but not within numbers (mteval-v13a, which sacrebleu calls 13a)."""
ENTITIES = (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


def words(text: str) -> list[str]:
    """The words of a text for ``bleu``; each character of Chinese and Japanese is one."""
    text = text.rstrip()
    for before, after in ENTITIES:
        text = text.replace(before, after)
    text = f" {''.join(f' {one} ' if is_ideograph(one) else one for one in text)} "
    for pattern, apart in APART:
        text = pattern.sub(apart, text)
    return text.split()


def is_ideograph(character: str) -> bool:
    """Whether a script without spaces wrote it."""
    if character.isascii():
        return False
    name = unicodedata.name(character, "")
    return name.startswith(("CJK ", "HIRAGANA ", "KATAKANA ", "IDEOGRAPHIC ", "FULLWIDTH "))
