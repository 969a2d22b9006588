"""Text in the data that spells control tokens: told of, and kept text where that is asked for.

References: the conversation with other words in the place of those tokens, which has the special tokens that the
template writes and no others; and the rendered text itself, which decoding must give back.
"""

import json
import random
import re
from collections import Counter

import ftk
import pytest
from ftk_data import TemplateOptions, renderer
from ftk_data.encoding import Encoder
from ftk_data.literal import ControlTokens
from ftk_data.prompts import PromptEncoder
from ftk_data.rows import build_chat, build_feedback, build_pairs, build_prompts, build_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = ("gpt-2", "llama-bpe", "qwen2", "phi-3", "deepseek-llm")


def template_of(tokens):
    """A template with tools that is written with two of a tokenizer's control tokens, the first and the last."""
    start, end = tokens[0], tokens[-1]
    return ftk.ChatTemplate(
        "made",
        system=f"{start}system\n{{content}}{end}\n",
        user=f"{start}user\n{{content}}{end}\n",
        tool=f"{start}tool\n{{content}}{end}\n",
        generation=f"{start}assistant\n",
        assistant=f"{{content}}{end}",
        assistant_end="\n",
        stop=(end,),
        tool_format="ftk_data.tools:HERMES",
        thinking=("<think>\n", "\n</think>\n\n"),
        options=TemplateOptions,
    )


def special_of(tokenizer):
    return sorted({*(str(one) for one in tokenizer.added_tokens_decoder.values() if one.special)})[:12]


def conversation(say):
    """A conversation with ``say()`` in every place where there can be text."""
    call = {"name": "weather", "arguments": {"city": say(), "deep": {"er": [say(), {"est": say()}]}, say() + "key": 1}}
    describes = {"name": "weather", "description": say(), "parameters": {"properties": {"city": {"enum": [say()]}}}}
    return {
        "messages": [
            {"role": "system", "content": say()},
            {"role": "user", "content": [say(), say()]},
            {"role": "assistant", "content": say(), "tool_calls": [call]},
            {"role": "tool", "content": say()},
            {"role": "assistant", "content": say(), "reasoning": say()},
            {"role": "user", "content": say()},
            {"role": "assistant", "content": say(), "reasoning": say()},
        ],
        "tools": [{"type": "function", "function": describes}],
    }


def harmless(text, tokens):
    return re.sub("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))), "word", text)


def without(value, tokens):
    """The same JSON with ordinary words in the place of control tokens."""
    if isinstance(value, str):
        return harmless(value, tokens)
    if isinstance(value, dict):
        return {harmless(key, tokens): without(one, tokens) for key, one in value.items()}
    if isinstance(value, list):  # the two texts of a content make one
        merged = ["".join(value)] if value and all(isinstance(one, str) for one in value) else value
        return [without(one, tokens) for one in merged]
    return value


def specials_in(row, ids):
    return [token for token in row["input_ids"].tolist() if token in ids]


@pytest.fixture
def literal_run(make_example_run):
    def make(rows, tokenizer, literally=True, **more):
        tokenizer.split_special_tokens = literally
        return make_example_run(rows, specs=(template_of(special_of(tokenizer)),), template="made",
                                tokenizer=tokenizer, **{"cutoff_len": 100_000, **more})  # fmt: skip

    return make


@pytest.fixture
def own_tokenizer(tokenizer):
    yield tokenizer
    tokenizer.split_special_tokens = False


def check_kept(rows, tokenizer, literal_run, report):
    """All of it for some conversations at once. Returns how many special tokens there are."""
    tokens = special_of(tokenizer)
    ids = set(tokenizer.convert_tokens_to_ids(tokens))
    run = literal_run(rows, tokenizer)
    made = list(build_chat(run, "train"))
    forged = [any(token in json.dumps(one, ensure_ascii=False) for token in tokens) for one in rows]
    told = report(run)["train"]["datasets"]["inline-1"].get("with control tokens in their text", 0)
    assert sum(forged) <= told <= len(rows)  # more only where two halves make one
    tame = list(build_chat(literal_run([without(one, tokens) for one in rows], tokenizer), "train"))
    assert len(made) == len(tame) > len(rows)  # two answers of a conversation with reasoning are two rows
    for row, other in zip(made, tame, strict=True):
        assert specials_in(row, ids) == specials_in(other, ids)
    plain = renderer(literal_run([], tokenizer))
    texts = []
    for row in rows:
        turns = tuple(
            ftk.Message(**{
                **turn,
                "content": "".join(turn["content"]),
                "tool_calls": tuple(ftk.ToolCall(**one) for one in turn.get("tool_calls", ())),
            })
            for turn in row["messages"]
        )  # fmt: skip
        texts += ["".join(part.text for part in one) for one in plain.render(turns, tuple(row["tools"]))]
    for row, text in zip(made, texts, strict=True):
        decoded = tokenizer.decode(row["input_ids"], clean_up_tokenization_spaces=False)
        assert re.sub(r"\s", "", decoded) == re.sub(r"\s", "", text)
    return sum(len(specials_in(row, ids)) for row in made)


def test_text_stays_text_wherever_it_stands(own_tokenizer, literal_run, report):
    """Over random texts with whole control tokens and halves of them."""
    pieces = ["Say", " one ", "\n", "<|", "|>", "im_", "é", '"', *special_of(own_tokenizer), "<|im_", "end|>"]

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(st.sampled_from(pieces), max_size=5).map("".join), min_size=16, max_size=16))
    def check(texts):
        given = iter(texts)
        assert check_kept([conversation(lambda: next(given))], own_tokenizer, literal_run, report)

    check()


@pytest.mark.parametrize("name", NAMES)
def test_text_stays_text_with_published_tokenizers(name, shared_tokenizer, literal_run, report):
    tokenizer = shared_tokenizer(name)
    if not special_of(tokenizer):
        tokenizer.add_special_tokens({"additional_special_tokens": ["<｜User｜>", "<｜Assistant｜>"]})
    random_one = random.Random(7)
    pieces = ["Say", " two  ", "\n", "a", "é", '"', ">", *special_of(tokenizer)]
    say = lambda: "".join(random_one.choices(pieces, k=random_one.randrange(5)))  # noqa: E731
    assert check_kept([conversation(say) for _ in range(20)], tokenizer, literal_run, report) > 100


@pytest.mark.parametrize("name", ["phi-3", "qwen2"])
def test_a_text_with_a_control_token_decodes_to_itself(name, shared_tokenizer):
    """SentencePiece puts a space in front of a text; a token that is text must not get one, nor what follows it."""
    tokenizer = shared_tokenizer(name)
    token = special_of(tokenizer)[-1]
    row = [ftk.Segment("a", False), ftk.Segment(token, False, literal=True), ftk.Segment("b c", False)]
    ids = Encoder(tokenizer).rows([row]).ids_T
    assert tokenizer.decode(ids) == f"a{token}b c"
    assert not {*ids.tolist()} & {*tokenizer.all_special_ids}


def test_an_end_token_that_is_not_marked_as_special_is_one_all_the_same(shared_tokenizer):
    tokenizer = shared_tokenizer("phi-3")
    tokenizer.eos_token = "</s>"
    assert ControlTokens.of(tokenizer).are_spelt("a</s>b")
    assert tokenizer.eos_token_id not in Encoder(tokenizer).literal_texts(["</s>"])[0]


def test_without_the_option_a_forged_turn_is_told_of_and_is_one(own_tokenizer, literal_run, report, caplog):
    forged = {"messages": [{"role": "user", "content": "a<|im_end|>b"}, {"role": "assistant", "content": "one"}]}
    plain = {"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "one"}]}
    run = literal_run([plain, forged, plain], own_tokenizer, literally=False)
    rows = build_chat(run, "train")
    end = own_tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert Counter(rows[1]["input_ids"].tolist())[end] == Counter(rows[0]["input_ids"].tolist())[end] + 1
    assert report(run)["train"]["datasets"]["inline-1"]["with control tokens in their text"] == 1
    assert "inline-1: 1 of 3 rows with control tokens in their text" in [record.message for record in caplog.records]


def test_the_option_changes_nothing_for_text_without_control_tokens(own_tokenizer, literal_run):
    plain = [conversation(lambda: "Say one")]
    rows = [[row["input_ids"].tolist() for row in build_chat(literal_run(plain, own_tokenizer, flag), "train")]
            for flag in (False, True)]  # fmt: skip
    assert rows[0] == rows[1]


def test_the_option_is_part_of_what_cached_rows_depend_on(own_tokenizer, literal_run):
    forged = [{"messages": [{"role": "user", "content": "a<|im_end|>b"}, {"role": "assistant", "content": "one"}]}]
    rows = [build_chat(literal_run(forged, own_tokenizer, flag), "train")[0]["input_ids"] for flag in (False, True)]
    assert len(rows[0]) < len(rows[1])


ASK = {"role": "user", "content": "a<|im_end|>b"}
SAY = {"role": "assistant", "content": "c<|im_start|>d"}


@pytest.mark.parametrize(
    ("build", "row", "keys"),
    [
        (build_prompts, {"messages": [ASK, SAY]}, ["input_ids"]),
        (build_prompts, {"messages": [ASK]}, ["input_ids"]),
        (
            build_pairs,
            {"messages": [ASK], "chosen": [SAY], "rejected": [SAY]},
            ["chosen_input_ids", "rejected_input_ids"],
        ),
        (build_feedback, {"messages": [ASK, SAY], "desirable": True}, ["input_ids", "kl_input_ids"]),
    ],
)
def test_it_holds_in_every_stage(build, row, keys, own_tokenizer, literal_run):
    ids = own_tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    (made,) = build(literal_run([row], own_tokenizer), "train")
    (tame,) = build(literal_run([without(row, special_of(own_tokenizer))], own_tokenizer), "train")
    for key in keys:
        assert [one for one in made[key].tolist() if one in ids] == [one for one in tame[key].tolist() if one in ids]
        assert "a<|im_end|>b" in own_tokenizer.decode(made[key])


def test_a_prompt_at_inference_has_the_tokens_of_a_trained_one(own_tokenizer, literal_run):
    run = literal_run([{"messages": [ASK, SAY]}], own_tokenizer)
    (row,) = build_prompts(run, "train")
    encoder = PromptEncoder(renderer(run), own_tokenizer)
    assert encoder.ids([([ftk.Message(**ASK)], ())]) == [row["input_ids"].tolist()]


def test_documents_are_told_of_and_kept_text_but_for_the_end_token(own_tokenizer, literal_run, report):
    for literally, num in ((False, 2), (True, 1)):
        run = literal_run([{"text": "one<|im_end|>two"}], own_tokenizer, literally, packing=False)
        (row,) = build_text(run, "train")
        end = own_tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert row["input_ids"].tolist().count(end) == num
        assert own_tokenizer.decode(row["input_ids"]) == "one<|im_end|>two<|im_end|>"
        assert (row["labels"] == row["input_ids"]).all()
        assert report(run)["train"]["datasets"]["inline-1"]["with control tokens in their text"] == 1


def test_an_answer_with_such_text_is_not_cut_at_it(own_tokenizer, literal_run):
    rows = [{"messages": [ASK, {"role": "assistant", "content": "one <|im_start|> two " * 3}]}]
    whole = build_chat(literal_run(rows, own_tokenizer), "train")[0]["input_ids"].tolist()
    for limit in range(len(whole) - 12, len(whole)):
        (row,) = build_chat(literal_run(rows, own_tokenizer, cutoff_len=limit), "train")
        assert row["input_ids"].tolist() == whole[:limit]


def test_the_longest_token_is_found_where_several_start():
    control = ControlTokens(["<a", "<a>", "<a><b>", ""])
    assert [("x<a><b>y<a<a>"[a:b]) for a, b in control.find("x<a><b>y<a<a>")] == ["<a><b>", "<a", "<a>"]
    assert not ControlTokens([]).are_spelt("anything")
