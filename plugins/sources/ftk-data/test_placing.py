"""Which medium stands where in a row. Reference: the conversation read from left to right, by hand."""

import dataclasses
import errno
from pathlib import Path

import ftk
import pytest
from ftk import Media, Message, Segment, Text
from ftk_data import TemplateOptions, shards
from ftk_data.literal import unescaped
from ftk_data.placing import media_of, placed
from ftk_data.rows import build_chat, build_feedback, build_prompts
from hypothesis import given, settings
from hypothesis import strategies as st

PLAIN = ftk.ChatTemplate(
    "plain",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    media={"image": "<image>", "video": "<video>"},
    options=TemplateOptions,
)
REWRITING = dataclasses.replace(PLAIN, name="rewriting", thinking=("<think>\n", "\n</think>\n\n"))


class Encoder:
    """Writes ``[image a]`` for the image ``a``, and keeps what it was asked for."""

    def __init__(self, **placeholders):
        self.placeholders = placeholders or {"image": "<image>", "video": "<video>"}
        self.asked = []

    def expand(self, media):
        self.asked.append(list(media))
        return [f"[{one.kind} {one.source}]" for one in media]


def text_of(row):
    return "".join(segment.text for segment in row)


def shown(row):
    return [segment.media.source for segment in row if segment.media]


def image(name):
    return Media("image", name)


# One row


def test_each_placeholder_becomes_the_next_medium_of_its_kind():
    messages = [Message("user", (image("a"), Text("then"), Media("video", "v"), image("b")))]
    row = [Segment("<video>, <image>", False), Segment("<image>!", True, 2.0)]  # a template may put videos first
    encoder = Encoder()
    (made,) = placed([row], messages, encoder)
    assert text_of(made) == "[video v], [image a][image b]!"
    assert encoder.asked == [[Media("video", "v"), image("a"), image("b")]]
    assert made[-1] == Segment("!", True, 2.0)
    assert all(not segment.trained for segment in made if segment.media)


PIECES = st.sampled_from(["<image>", "<video>", "x", "<", "image>"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.lists(PIECES, max_size=4).map("".join), st.booleans()), max_size=4))
def test_the_text_around_media_is_kept(texts):
    row = [Segment(text, trained) for text, trained in texts]
    marks = [(kind, text_of([one]).count(f"<{kind}>")) for one in row for kind in ("image", "video")]
    media = [Media(kind, str(number)) for kind, num in marks for number in range(num)]
    (made,) = placed([row], [Message("user", tuple(media))], Encoder(image="<image>", video="<video>"))
    assert "".join(f"<{one.media.kind}>" if one.media else one.text for one in made) == text_of(row)
    assert "".join(one.text for one in made if one.trained) == "".join(
        text.replace("<image>", "").replace("<video>", "") for text, trained in texts if trained
    )
    for kind in ("image", "video"):
        assert [one.media for one in made if one.media and one.media.kind == kind] == [
            one for one in media if one.kind == kind
        ]


def test_rows_without_media_are_left_as_they_are():
    rows = [[Segment("a", False), Segment("b", True)]]
    assert placed(rows, [Message("user", "a")], Encoder()) == rows


@pytest.mark.parametrize(
    ("text", "media", "error"),
    [
        ("<image><image>", [image("a")], r"more <image> placeholders than images \(1 image\(s\)\)"),
        ("a <image>", [], r"more <image> placeholders than images \(no media\)"),
        ("<video>", [image("a")], r"more <video> placeholders than videos \(1 image\(s\)\)"),
        ("a", [image("a"), image("b")], r"has 2 image\(s\), and the chat template writes 0 of them"),
        ("<image>", [image("a"), image("b")], r"has 2 image\(s\), and the chat template writes 1 of them"),
        ("<image>", [image("a"), Media("audio", "s")], r"has 1 audio\(s\) and 1 image\(s\), .* writes 1 of them"),
    ],
)
def test_as_many_placeholders_as_media_or_an_error(text, media, error):
    with pytest.raises(ftk.DataError, match=error):
        placed([[Segment(text, False)]], [Message("user", tuple(media))], Encoder())


def test_an_encoder_without_placeholders_has_a_place_for_nothing():
    encoder = Encoder()
    encoder.placeholders = {}
    with pytest.raises(ftk.DataError, match="writes 0 of them"):
        placed([[Segment("abc", False)]], [Message("user", (image("a"),))], encoder)


def test_literal_text_spells_no_placeholder():
    row = [Segment("<image>", False), Segment("<image>", False, literal=True)]
    (made,) = placed(unescaped([row]), [Message("user", (image("a"),))], Encoder())
    assert [segment.text for segment in made] == ["[image a]", "<image>"]


def test_a_placeholder_that_begins_another_is_not_taken_for_it():
    encoder = Encoder(image="<i>", video="<i><v>")
    (made,) = placed([[Segment("<i><v><i>", False)]], [Message("user", (image("a"), Media("video", "v")))], encoder)
    assert text_of(made) == "[video v][image a]"


# Conversations


def turns(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


@pytest.fixture
def shown_run(make_example_run):
    def make(rows, template=PLAIN, **settings):
        run = make_example_run(rows, specs=(PLAIN, REWRITING), template=template.name, **settings)
        run.media = Encoder()
        return run

    return make


def sources(row):
    return [one.source for one in row.get("media", ())]


TALK = turns([["image", "a"], "what"], "one", ["and", ["image", "b"]], "two", [["image", "c"]], "three")


def test_each_row_of_a_conversation_shows_what_comes_before_its_answer(shown_run, tokenizer):
    talk = [{**turn, "reasoning": "why"} if turn["role"] == "assistant" else turn for turn in TALK]
    rows = build_chat(shown_run([{"messages": talk}], REWRITING), "train")
    assert [sources(row) for row in rows] == [["a"], ["a", "b"], ["a", "b", "c"]]
    for row in rows:
        text = tokenizer.decode(row["input_ids"])
        assert [f"[image {name}]" in text for name in "abc"] == [name in sources(row) for name in "abc"]
        assert "[" not in tokenizer.decode(row["labels"][row["labels"] != -100])


@pytest.mark.parametrize("template", [PLAIN, REWRITING])
@pytest.mark.parametrize("number", [1, 3])
def test_media_after_the_last_trained_answer_do_no_harm(template, number, shown_run, report):
    talk = [{**turn, "trained": i == number} if turn["role"] == "assistant" else turn for i, turn in enumerate(TALK)]
    run = shown_run([{"messages": talk}], template)
    (row,) = build_chat(run, "train")
    before = ["a", "b", "c"][: (number + 1) // 2]
    assert sources(row)[: len(before)] == before
    assert sources(row) in (before, ["a", "b", "c"])


def test_a_prompt_shows_its_media(shown_run):
    rows = build_prompts(shown_run([{"messages": TALK[:5]}, {"messages": TALK}]), "train")
    assert [sources(row) for row in rows] == [["a", "b", "c"]] * 2


def test_feedback_shows_the_media_of_its_prompt_with_either_answer(shown_run):
    rows = [{"messages": TALK[:2], "desirable": True}, {"messages": turns("b", "two"), "desirable": False}]
    first, second = build_feedback(shown_run(rows), "train")
    assert sorted(map(str, (sources(first), sources(second)))) == ["['a']", "[]"]
    for row in (first, second):
        assert [one.source for one in row.get("kl_media", ())] == sources(row)


@pytest.mark.parametrize(("build", "more"), [(build_feedback, {"desirable": True}), (build_prompts, {})])
def test_an_answer_that_shows_something_is_refused_where_answers_are_taken_apart(shown_run, build, more):
    talk = {"messages": turns("draw", ["here: ", ["image", "a"]]), **more}
    with pytest.raises(ftk.DataError, match="its answer shows images, and an answer of this stage is text"):
        build(shown_run([talk]), "train")
    (row,) = build_chat(shown_run([{"messages": talk["messages"]}]), "train")
    assert sources(row) == ["a"]


def test_words_that_spell_a_placeholder_lose_one_row_with_the_reason(shown_run, report, caplog):
    rows = [{"messages": turns("an <image> tag", "one")}, {"messages": TALK[:2]}]
    run = shown_run(rows, on_bad_row="skip")
    assert [sources(row) for row in build_chat(run, "train")] == [["a"]]
    assert report(run)["train"]["datasets"]["inline-1"]["dropped: malformed"] == 1
    assert any("rows.jsonl:1: has more <image> placeholders" in record.message for record in caplog.records)


def test_media_without_anything_that_serves_them_are_an_error(make_example_run):
    run = make_example_run([{"messages": TALK[:2]}], specs=(PLAIN,), template="plain")
    with pytest.raises(ftk.DataError, match="no media processor is installed for this model"):
        build_chat(run, "train")


def test_packed_rows_show_the_media_of_all(shown_run):
    rows = [{"messages": turns([["image", name]], "one")} for name in "abc"]
    (row,) = build_chat(shown_run(rows, packing=True, cutoff_len=1000), "train")
    assert sources(row) == ["a", "b", "c"]


# Bytes


@pytest.fixture
def bytes_row(tmp_path, monkeypatch):
    """``bytes_row(raw)``: a placed row that shows these bytes."""
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))

    def make(raw):
        return placed([[Segment("<image>", False)]], [Message("user", (Media("image", raw),))], Encoder())[0]

    return make


def test_bytes_become_a_file_of_the_cache_once(bytes_row, tmp_path, monkeypatch):
    (segment,) = bytes_row(b"raw bytes")
    path = Path(segment.media.source)
    assert path.parent == tmp_path / "cache" / "media"
    assert path.read_bytes() == b"raw bytes"
    monkeypatch.setattr(shards, "put", lambda *_: pytest.fail("written again"))
    assert bytes_row(b"raw bytes") == [segment]


def test_bytes_that_cannot_be_kept_are_one_line(bytes_row, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "put", full)
    with pytest.raises(ftk.ConfigError, match=r"cannot be kept: No space left on device\. Set FTK_CACHE"):
        bytes_row(b"raw")


def test_media_of_a_conversation_are_those_of_its_parts():
    assert media_of([Message("user", "x"), Message("user", (Text("y"), image("a")))]) == [image("a")]
