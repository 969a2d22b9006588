"""ROUGE of answers: how many of the reference's words, pairs of words and subsequences they share (Lin 2004)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ftk import hookimpl
from ftk_training import Metric

if TYPE_CHECKING:
    from ftk_training.prediction import Prediction


@hookimpl
def ftk_metrics() -> Iterator[Metric]:
    yield Metric(
        "rouge",
        target="ftk_rouge:compare",
        requires=("jieba",),
        summary="ROUGE-1, ROUGE-2 and ROUGE-L over jieba's words",
    )


def compare(predictions: Sequence[Prediction]) -> dict[str, float]:
    """``rouge-1``, ``rouge-2``, ``rouge-l``: the mean of each answer's F measure, 0 to 100."""
    measures: dict[str, Callable[[Sequence[str], Sequence[str]], float]] = {
        "rouge-1": lambda mine, theirs: overlap(mine, theirs, 1),
        "rouge-2": lambda mine, theirs: overlap(mine, theirs, 2),
        "rouge-l": longest_common,
    }
    pairs = [(words(one.predict), words(one.label)) for one in predictions]
    return {name: 100 * sum(measure(*pair) for pair in pairs) / len(pairs) for name, measure in measures.items()}


def overlap(mine: Sequence[str], theirs: Sequence[str], size: int) -> float:
    """F of the n-grams of both texts, each counted as often as it stands in both."""
    grams = [Counter(zip(*(text[n:] for n in range(size)), strict=False)) for text in (mine, theirs)]
    return f_measure((grams[0] & grams[1]).total(), grams[0].total(), grams[1].total())


def longest_common(mine: Sequence[str], theirs: Sequence[str]) -> float:
    """F of the longest sequence of words that stands in both texts in this order, with others in between."""
    row = [0] * (len(theirs) + 1)
    for word in mine:
        before = 0
        for place, other in enumerate(theirs, start=1):
            kept = row[place]
            row[place] = before + 1 if word == other else max(kept, row[place - 1])
            before = kept
    return f_measure(row[-1], len(mine), len(theirs))


def f_measure(shared: int, mine: int, theirs: int) -> float:
    """The harmonic mean of precision and recall, 0 when nothing is shared."""
    return 2 * shared / (mine + theirs) if shared else 0.0


def words(text: str) -> list[str]:
    """The words of a text, Chinese or not, by jieba; spaces are none."""
    return [word for word in cutter()(text) if word.strip()]


@cache
def cutter() -> Callable[[str], Any]:
    """jieba's, its dictionary read anew: its own cache lies in the common temporary folder and is unmarshalled."""
    import jieba

    made = jieba.Tokenizer()
    made.FREQ, made.total = made.gen_pfdict(made.get_dict_file())
    made.initialized = True
    return made.cut  # type: ignore[no-any-return]
