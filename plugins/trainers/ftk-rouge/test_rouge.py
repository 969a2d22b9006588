"""ROUGE. Reference: numbers of Google's rouge-score 0.1.2 over jieba's words; itself, on random texts, where it is
installed; the definition of a longest common subsequence, tried out."""

import random
from itertools import combinations

import pytest
from ftk.testing import check_plugin
from ftk_rouge import compare, longest_common, words
from ftk_training.prediction import Prediction

CASES = [
    ("the cat sat on the mat", "the cat is sitting on the mat", (76.9231, 54.5455, 76.9231)),
    ("Don't pay $3.14, pay $3!", "Do not pay $3.14: pay $2.", (47.619, 31.5789, 47.619)),
    ("今天天气很好，我们去公园。", "今天的天气非常好，我们一起去公园散步。", (60.0, 33.3333, 60.0)),
    ("yes", "yes", (100.0, 0.0, 100.0)),
    ("a b", "completely different words", (0.0, 0.0, 0.0)),
    ("", "not empty", (0.0, 0.0, 0.0)),
]


def test_the_plugin_keeps_the_contract():
    assert check_plugin("rouge")


@pytest.mark.parametrize(("predict", "label", "wanted"), CASES)
def test_an_answer_has_the_packages_numbers(predict, label, wanted):
    found = compare([Prediction("", predict, label)])
    assert list(found) == ["rouge-1", "rouge-2", "rouge-l"]
    assert tuple(found.values()) == pytest.approx(wanted, abs=1e-4)


def test_a_set_has_the_mean_of_its_answers():
    found = compare([Prediction("", predict, label) for predict, label, _ in CASES])
    means = [sum(numbers) / len(CASES) for numbers in zip(*(wanted for *_, wanted in CASES), strict=True)]
    assert list(found.values()) == pytest.approx(means, abs=1e-4)


def test_chinese_is_cut_into_words_and_english_at_spaces():
    assert words("中华人民共和国成立了, in 1949") == ["中华人民共和国", "成立", "了", ",", "in", "1949"]


def test_the_longest_common_subsequence_is_the_longest():
    chosen = random.Random(0)
    for _ in range(30):
        mine, theirs = (chosen.choices("abc", k=chosen.randint(1, 7)) for _ in range(2))
        parts = [{tuple(p) for n in range(len(text) + 1) for p in combinations(text, n)} for text in (mine, theirs)]
        longest = max(map(len, parts[0] & parts[1]))
        assert longest_common(mine, theirs) == pytest.approx(2 * longest / (len(mine) + len(theirs)))


def test_random_texts_have_the_packages_numbers():
    rouge = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is compared with where it is installed")

    class Jieba:
        def tokenize(self, text):
            return words(text)

    scorer = rouge.RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Jieba())
    chosen = random.Random(0)
    for _ in range(20):
        predict, label = (
            "".join(chosen.choices("今天天气很好，我们去 the cat", k=chosen.randint(1, 30))) for _ in range(2)
        )
        wanted = [100 * one.fmeasure for one in scorer.score(label, predict).values()]
        assert list(compare([Prediction("", predict, label)]).values()) == pytest.approx(wanted, abs=1e-6)
