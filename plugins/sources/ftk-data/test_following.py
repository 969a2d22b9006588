"""An answer that comes piece by piece, held against the whole answer taken apart at once (``Renderer.read``)."""

import json

import pytest
from ftk.opening import open_run
from ftk_data import renderer
from ftk_data.following import Follower

TOOLS = (
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    },
)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'
ANSWERS = [
    ("Just words, 1 < 2.", ()),
    ("<think>\nA thought < b.\n</think>\n\nWords.", ()),
    (f"Let me look.\n{CALL}", TOOLS),
    (f"<think>\nTwo.\n</think>\n\n{CALL}\n{CALL}", TOOLS),
    ("Words with <tool inside, but no call", TOOLS),
    ("<think>\nnever ends", ()),
    ("", ()),
]


@pytest.fixture(scope="module", params=["qwen3", "qwen", "llama3", "chatml"])
def template(request):
    words = ["--model_name_or_path", "ftk://random/llama", "--template", request.param]
    return renderer(open_run("chat", None, words))


def followed(template, text, tools, size):
    follower = Follower(template, tools)
    said = [one for at in range(0, len(text), size) for one in follower.push(text[at : at + size])]
    early = "".join(one.text for one in said)
    said += follower.finish()
    joined = {kind: "".join(one.text for one in said if one.kind == kind) for kind in ("reasoning", "content")}
    return follower.message, joined, early


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("text", "tools"), ANSWERS)
def test_pieces_joined_are_the_answer_taken_apart(template, text, tools, size):
    message, joined, early = followed(template, text, tools, size)
    assert message == template.read(text, tools)
    assert joined == {"reasoning": message.reasoning or "", "content": message.text}
    assert "tool_call>" not in joined["content"] or not message.tool_calls
    assert "think>" not in early


def test_what_is_certain_comes_at_once(template):
    follower = Follower(template, ())
    assert [one.text for one in follower.push("Hello")] == ["Hello"]
    assert [one.text for one in follower.push(" there")] == [" there"]


def test_calls_are_not_told_as_words(template):
    message, joined, _ = followed(template, f"Let me look.\n{CALL}", TOOLS, 2)
    if message.tool_calls:  # llama3 calls in another dialect
        assert joined["content"] == "Let me look."
        assert json.loads(json.dumps(dict(message.tool_calls[0].arguments))) == {"city": "Ulm"}
