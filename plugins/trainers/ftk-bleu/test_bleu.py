"""BLEU. Reference: numbers of nltk 3.10.4 (sentence_bleu of characters, SmoothingFunction().method3) and of sacrebleu
2.6.0 (BLEU(tokenize="13a") and "zh"); both themselves, on random texts, where they are installed."""

import random

import pytest
from ftk.testing import check_plugin
from ftk_bleu import compare, corpus_bleu, words
from ftk_training.prediction import Prediction

CASES = [
    ("the cat sat on the mat", "the cat is sitting on the mat", 58.5586),
    ("Don't pay $3.14, pay $3!", "Do not pay $3.14: pay $2.", 62.4282),
    ("今天天气很好，我们去公园。", "今天的天气非常好，我们一起去公园散步。", 21.9421),
    ("yes", "yes", 84.0896),
    ("a b", "completely different words", 0.0106),
    ("", "not empty", 0.0),
]
ALL = [Prediction("", predict, label) for predict, label, _ in CASES]


def test_the_plugin_keeps_the_contract():
    assert check_plugin("bleu")


@pytest.mark.parametrize(("predict", "label", "wanted"), CASES)
def test_bleu_4_of_one_answer_is_nltks(predict, label, wanted):
    assert compare([Prediction("", predict, label)])["bleu-4"] == pytest.approx(wanted, abs=1e-4)


def test_bleu_of_all_answers_is_sacrebleus():
    assert compare([one for one in ALL if one.predict.isascii()])["bleu"] == pytest.approx(17.178676207)
    assert compare(ALL[2:3])["bleu"] == pytest.approx(21.942050350)


def test_bleu_4_is_the_mean_over_answers():
    assert compare(ALL)["bleu-4"] == pytest.approx(sum(wanted for *_, wanted in CASES) / len(CASES), abs=1e-4)


def test_numbers_stay_whole_and_punctuation_stands_apart():
    assert words("It's 3.5% (or 2-3), &quot;ok&quot;") == [
        "It's",
        "3.5",
        "%",
        "(",
        "or",
        "2",
        "-",
        "3",
        ")",
        ",",
        '"',
        "ok",
        '"',
    ]
    assert words("GPT模型很好") == ["GPT", "模", "型", "很", "好"]


def test_nothing_in_common_and_nothing_at_all_are_zero():
    assert corpus_bleu([(["a"] * 5, ["b"] * 5)]) == 0
    assert corpus_bleu([([], [])]) == 0


def test_random_texts_have_the_packages_numbers():
    metrics = pytest.importorskip("sacrebleu.metrics", reason="sacrebleu is compared with where it is installed")
    nltk = pytest.importorskip("nltk.translate.bleu_score", reason="nltk is compared with where it is installed")
    chosen = random.Random(0)
    for alphabet, tokenize in (
        (["the", "cat", ",", "3.14", "2-3", "!", "don't"], "13a"),
        (list("今天天气很好，我们去。1949"), "zh"),
    ):
        for _ in range(20):
            space = " " if tokenize == "13a" else ""
            predict, label = (space.join(chosen.choices(alphabet, k=chosen.randint(1, 30))) for _ in range(2))
            found = compare([Prediction("", predict, label)])
            wanted = metrics.BLEU(tokenize=tokenize).corpus_score([predict], [[label]]).score
            assert found["bleu"] == pytest.approx(wanted, abs=1e-6)
            smoothing = nltk.SmoothingFunction().method3
            wanted = 100 * nltk.sentence_bleu([list(label)], list(predict), smoothing_function=smoothing)
            assert found["bleu-4"] == pytest.approx(wanted, abs=1e-6)
