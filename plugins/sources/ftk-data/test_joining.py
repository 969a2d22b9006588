"""Texts that go to the tokenizer together, against the tokens of each by itself (the tokenizers library)."""

from __future__ import annotations

import random

import pytest
from ftk import Segment
from ftk_data.encoding import Encoder
from ftk_data.joining import TOGETHER, Joiner, Separator, keeps_apart, separators
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

WORDS = ("one two\n", " ", "\n", "\n\n", "the answer", "<|end|>", "<|start|>", "<|en", "d|>", "1 + 1 = 2", "ü", "<", "")


def tokenizer(*tokens: AddedToken) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        ["one two the answer is two\n\nof the two\n"] * 4,
        trainers.BpeTrainer(vocab_size=320, initial_alphabet=[*alphabet, "▁"]),
    )
    made.add_special_tokens([AddedToken("<|start|>", special=True, normalized=False), *tokens])
    return PreTrainedTokenizerFast(tokenizer_object=made)


def token(text: str = "<|end|>", **flags: bool) -> AddedToken:
    return AddedToken(text, **{"special": True, "normalized": False, **flags})


def joiner(made: PreTrainedTokenizerFast) -> Joiner:
    return Joiner(made.backend_tokenizer, made.added_tokens_decoder)


def alone(made: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return [made.backend_tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def random_texts(seed: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(WORDS, k=chance.randint(0, 5))) for _ in range(2500)]


def test_texts_together_have_the_tokens_that_each_has_by_itself():
    made, texts = tokenizer(token(), token("<|spare|>")), random_texts(0)
    assert sum(map(len, texts)) > TOGETHER  # several calls' worth
    ids_T, lengths_N = joiner(made).tokens(texts)
    expected = alone(made, texts)
    assert ids_T.tolist() == [number for ids in expected for number in ids]
    assert lengths_N.tolist() == list(map(len, expected))


def test_a_text_that_spells_the_separator_makes_another_one_take_its_place():
    made = tokenizer(token(), token("<|spare|>"))
    several = joiner(made)
    for texts in (["one", "two"], ["one<|start|>", "two"], ["one<|start|>", "<|end|>two"], ["<|spare|>", "one"]):
        assert several.tokens(texts).ids_T.tolist() == [number for ids in alone(made, texts) for number in ids]
    assert several.tokens(["<|start|><|end|>", "<|spare|>"]) is None


def test_rows_are_the_same_whether_or_not_a_token_is_left_to_separate():
    spared, bare = Encoder(tokenizer(token(), token("<|spare|>"))), Encoder(tokenizer(token()))
    chance = random.Random(1)
    rows = [
        [Segment(text, chance.random() < 0.5) for text in random_texts(number)[: chance.randint(0, 6)]]
        for number in range(60)
    ]
    one, other = spared.rows(rows), bare.rows(rows)
    assert bare._joiner.tokens([segment.text for row in rows for segment in row]) is None
    assert one.ids_T.tolist() == other.ids_T.tolist()
    assert one.trained_T.tolist() == other.trained_T.tolist()
    assert one.starts.tolist() == other.starts.tolist()
    assert one.ends.tolist() == other.ends.tolist()
    assert Encoder(tokenizer()).rows([]).ids_T.tolist() == []


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("<|end|>", [token(rstrip=True)]),
        ("<|end|>", [token(lstrip=True)]),
        ("<|end|>", [token(normalized=True)]),
        ("<|end|>", [token(), token("<|end|>\n")]),
        ("<|end|>", [token(), token("two<|", special=False)]),
        ("<|end|>", [token(), token("word", single_word=True)]),
        ("ana", [token("ana")]),
        (" end", [token(" end")]),
    ],
    ids=["rstrip", "lstrip", "normalized", "longer", "ends in it", "single word", "begins as it ends", "space"],
)
def test_a_token_that_touches_what_is_around_it_separates_nothing(text, tokens):
    assert text not in [one.text for one in separators(dict(enumerate(tokens)))]


def test_a_tokenizer_for_which_the_start_of_a_text_is_something_else_is_found_out_by_trying():
    made = tokenizer(token()).backend_tokenizer
    separator = Separator("<|end|>", made.token_to_id("<|end|>"))
    assert keeps_apart(made, separator)
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    assert not keeps_apart(made, separator)
