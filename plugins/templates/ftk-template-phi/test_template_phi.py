"""Reference: the published templates of Phi 3, Phi 3 Small and Phi 4 and their renders (golden/renders.jsonl), and
LLaMA-Factory's formats of Phi 4 Mini (section 4 of the reference)."""

import json
from pathlib import Path

import ftk_template_phi
import pytest
from ftk import DataError, Media, Message
from ftk_data.environment import compiled, render_marked

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
SPECS = {spec.name: spec for spec in ftk_template_phi.ftk_chat_templates()}
TOOLS = ({"type": "function", "function": {"name": "look"}},)
TURNS = [
    Message("system", "Be"),
    Message("user", "Hi"),
    Message("assistant", "Ho"),
    Message("user", "Ha"),
    Message("assistant", "He"),
]


@pytest.mark.parametrize(("family", "name"), [("phi3", "phi"), ("phi4", "phi4")])
def test_it_renders_what_the_published_template_renders(check_published, family, name):
    # calls and results are left out there without a word, and refused here
    assert check_published(SPECS[name], family, lambda case: case["case"].startswith("tool_call")) == 30


def test_phi_small_renders_what_the_published_file_renders_without_its_indentation(make_renderer):
    """As the collection that it comes from (chujiezheng/chat_templates) says to use its files; the golden renders were
    made with it as it is, so that line breaks and four spaces stand between the turns there."""
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    file = (GOLDEN / "templates" / "phi3-small.jinja").read_text(encoding="utf-8")
    published = compiled(file.replace("    ", "").replace("\n", ""))
    made = make_renderer(SPECS["phi_small"], "<|endoftext|>", "<|endoftext|>")
    compared = 0
    for case in map(json.loads, (GOLDEN / "renders.jsonl").open(encoding="utf-8")):
        if case["family"] != "phi3-small" or "rendered" not in case:
            continue
        variables = {"add_generation_prompt": case["add_generation_prompt"], **made.tokens}
        expected = published.render(messages=case["messages"], **variables)
        assert render_marked(made.source, case["messages"], **variables)[0] == expected, case["case"]
        assert expected.replace("\n", "") == case["rendered"].replace("\n", "").replace("    ", "")
        compared += 1
    assert compared == 30


@pytest.mark.parametrize(
    ("name", "stop", "prompt", "after"),
    [
        ("phi", "<|end|>", "<|system|>\nBe<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n", "\n<|endoftext|>"),
        ("phi_small", "<|end|>", "<s><|system|>\nBe<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n", "\n"),
        ("phi4", "<|im_end|>", "<|im_start|>system<|im_sep|>Be<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
         "<|im_start|>assistant<|im_sep|>", ""),
        ("phi4_mini", "<|end|>", "<|system|>Be<|end|><|user|>Hi<|end|><|assistant|>", ""),
    ],
)  # fmt: skip
def test_answers_are_trained_with_their_stop_token_and_nothing_after(make_renderer, name, stop, prompt, after):
    made = make_renderer(SPECS[name], "<s>", "<|endoftext|>")
    (row,) = made.render(TURNS)
    assert [segment.text for segment in row if segment.trained] == [f"Ho{stop}", f"He{stop}"]
    assert row[0].text == prompt == made.prompt_text(TURNS[:2])
    assert "".join(segment.text for segment in row[:3]) == made.prompt_text(TURNS[:4])
    assert "".join(segment.text for segment in row).endswith(f"He{stop}{after}")
    assert made.stop == (stop, "<|endoftext|>")


@pytest.mark.parametrize("name", sorted(SPECS))
def test_default_system_stands_in_for_a_missing_one(make_renderer, name):
    made = make_renderer(SPECS[name], "<s>", "<|endoftext|>", default_system="Be")
    assert made.prompt_text(TURNS[1:2]) == made.prompt_text(TURNS[:2])


@pytest.mark.parametrize("name", sorted(SPECS))
def test_tools_are_refused(make_renderer, name):
    with pytest.raises(DataError, match=r"holds tools or calls|leaves out the tools"):
        make_renderer(SPECS[name]).prompt_text(TURNS[:2], TOOLS)


@pytest.mark.parametrize(
    ("message", "why"),
    [(Message("tool", "7"), "a turn of tool"), (Message("user", (Media("image", "a.png"),)), "no place for media")],
)
def test_phi_refuses_what_it_has_no_place_for(make_renderer, message, why):
    with pytest.raises(DataError, match=why):
        make_renderer(SPECS["phi"], None, "<|endoftext|>").prompt_text([message])
