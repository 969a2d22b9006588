"""The tokens that a model reads before an answer at inference are those that stood before it in training.

References: for the texts, the same conversation without the answer; for the tokens, each other: rows go through the
encoder of training (:mod:`ftk_data.encoding`), prompts through the one of the engines (:mod:`ftk_data.prompts`).
"""

from functools import cache
from pathlib import Path

import pytest
from ftk import Message
from ftk.opening import open_run
from ftk.registry import Registry
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ftk_data")
pytest.importorskip("ftk_tiny")

from ftk_data import TemplateOptions
from ftk_data.conversations import UNSET
from ftk_data.direct import quick
from ftk_data.encoding import Encoder
from ftk_data.prompts import PromptEncoder
from ftk_data.rendering import declared

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "templates"
FILES = sorted(GOLDEN.glob("*.jinja"))
NAMED = [spec for spec in Registry.discover().specs("template").values() if not spec.target]
TEXTS = st.sampled_from(["Hi", "x", " y ", "\nz", "a\n", "é 世界", "  in\n\n  dented", "Is it?", "It's 1+1=2."])
TWO_PROMPTS = {"deepseek3", "deepseekr1_distill", "gemma4", "gemma4n", "nemotron3"}
"""Their published template writes another text before an answer without a thought than its prompts have, unless
``enable_thinking`` says which; rows are what it writes, with a warning."""
THINKING = [spec for spec in NAMED if spec.thinking]


@cache
def tokenizer():
    made = open_run("template", None, ["--model_name_or_path", "ftk://tiny-chat"]).tokenizer
    made.bos_token = "<|im_start|>"  # it has none
    return made


def prompts_of(encoder, rows):
    """What stands before each trained answer, as the tokens of its row."""
    for row in rows:
        batch = encoder.rows([row])
        trained = batch.trained_T.tolist()
        starts = [i for i, one in enumerate(trained) if one and not (i and trained[i - 1])]
        yield from (batch.ids_T[:start].tolist() for start in starts)


NONE = st.none()


@st.composite
def conversations(draw, thoughts=NONE):
    turns = [Message("system", draw(TEXTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Message("user", draw(TEXTS)), Message("assistant", draw(TEXTS), draw(thoughts))]
    return turns


def check(spec, thinking, given_turns):
    made = declared(spec, tokenizer(), TemplateOptions(), thinking)
    check_renderer(quick(made, spec, None, False), given_turns)


def check_renderer(renderer, given_turns):
    encoder, prompts = Encoder(tokenizer()), PromptEncoder(renderer, tokenizer())

    @settings(max_examples=5, deadline=None, derandomize=True)
    @given(given_turns)
    def holds(turns):
        asked = [turns[:i] for i, turn in enumerate(turns) if turn.role == "assistant"]
        found = list(prompts_of(encoder, renderer.render(turns)))
        assert found == prompts.ids([(messages, ()) for messages in asked])

    holds()


@pytest.mark.parametrize("spec", NAMED, ids=lambda spec: spec.name)
def test_the_tokens_before_an_answer_are_those_of_its_prompt(spec, caplog):
    if spec.name not in TWO_PROMPTS:
        check(spec, UNSET, conversations())
        return
    renderer = declared(spec, tokenizer(), TemplateOptions())
    turns = [Message("user", "Hi"), Message("assistant", "Ho")]
    (row,) = renderer.render(turns)
    assert row[0].text != renderer.prompt_text(turns[:1])
    assert "before an answer without a thought the chat template writes" in caplog.text


@pytest.mark.parametrize("spec", THINKING, ids=lambda spec: spec.name)
def test_so_they_are_with_thoughts_when_these_are_asked_for(spec):
    check(spec, True, conversations(st.sampled_from(["Hm", "a\n\nb"])))


@pytest.mark.parametrize("spec", THINKING, ids=lambda spec: spec.name)
def test_and_when_thoughts_are_switched_off(spec):
    check(spec, False, conversations(st.none() | st.just("Hm")))


DIVIDED = {
    "phi3-small", "deepseek-v3", "deepseek-r1-distill-qwen", "gemma4", "vicuna-chujie", "alpaca", "nemotron3-nano",
}  # fmt: skip
"""As TWO_PROMPTS; three of them have other whitespace there."""


@pytest.mark.parametrize("file", FILES or [None], ids=lambda file: file and file.stem)
def test_so_they_are_with_the_template_that_a_model_brings(file):
    if file is None:
        pytest.skip(f"{GOLDEN} is not there")
    if file.stem in DIVIDED:
        pytest.skip("its prompts are not what it writes in conversations")
    own = pytest.importorskip("ftk_template_auto.own").own
    renderer = own(file.read_text(encoding="utf-8"), tokenizer(), TemplateOptions())
    takes = conversations() if file.stem != "gemma" else conversations().filter(lambda turns: turns[0].role != "system")
    check_renderer(renderer, takes)
