"""What becomes of long rows, lost rows, flags and weights, in every stage.

References: the whole row, cut by hand at each length; and a count of what went in. Answers are written in digits and
nothing else is, so that a trained token shows where it comes from.
"""

import dataclasses
import re

import ftk
import numpy as np
import pytest
from ftk_data import TemplateOptions
from ftk_data.rows import build_chat, build_feedback, build_pairs, build_prompts, build_text
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

PLAIN = ftk.ChatTemplate(
    "plain",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    media={"image": "<image>"},
    options=TemplateOptions,
)
REWRITING = dataclasses.replace(PLAIN, name="rewriting", thinking=("<think>\n", "\n</think>\n\n"))
BUILD = {"chat": build_chat, "pairs": build_pairs, "feedback": build_feedback, "prompts": build_prompts}
SHORT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "1"}]


class Pictures:
    """A medium of as many tokens as the name of its file says."""

    placeholders = {"image": "<image>"}  # noqa: RUF012 (as the protocol has it)

    def expand(self, media):
        return ["!" * int(one.source) for one in media]


def turns(*contents):
    """user, assistant, user, ... in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def trained_texts(tokenizer, row, prefix=""):
    """What is trained, as stretches."""
    labels = row[f"{prefix}labels"].tolist()
    stretches, last = [], -100
    for label in labels:
        if label != -100:
            stretches += [[]] if last == -100 else []
            stretches[-1].append(label)
        last = label
    return [tokenizer.decode(stretch) for stretch in stretches]


@pytest.fixture
def example_run(make_example_run):
    def make(rows, template=PLAIN, **settings):
        run = make_example_run(rows, specs=(PLAIN, REWRITING), template=template.name, **settings)
        run.media = Pictures()
        return run

    return make


def of_data(report, run, split="train"):
    return report(run)[split]["datasets"]["inline-1"]


# Nothing is lost without a word, nothing is trained that nobody answered

LETTERS = st.text(st.sampled_from("abc \n"), max_size=8)
DIGITS = st.text(st.sampled_from("0123456789"), max_size=50)
PICTURE = st.lists(LETTERS | st.integers(1, 40).map(lambda size: ["image", str(size)]), min_size=1, max_size=3)
ANSWER = st.one_of(
    st.builds(lambda text, flag, weight: {"role": "assistant", "content": text, "trained": flag, "weight": weight},
              DIGITS, st.sampled_from([None, True]), st.sampled_from([1.0, 0.5, 2.0])),
    st.builds(lambda text: {"role": "assistant", "content": text, "trained": False}, LETTERS),
    st.builds(lambda text, why: {"role": "assistant", "content": text, "reasoning": why}, DIGITS, DIGITS),
)  # fmt: skip
QUESTION = st.builds(lambda content, flag: {"role": "user", "content": content, "trained": flag},
                     LETTERS | PICTURE, st.sampled_from([None, True]))  # fmt: skip
TALK = st.builds(lambda pairs, ask, system: [
    *([{"role": "system", "content": system}] if system else []), *(turn for pair in pairs for turn in pair),
    *([ask] if ask else []),
], st.lists(st.tuples(QUESTION, ANSWER), max_size=3), st.none() | QUESTION, st.none() | LETTERS)  # fmt: skip
SAID = DIGITS.map(lambda text: [{"role": "assistant", "content": text}])
EXAMPLES = {
    "chat": TALK.map(lambda talk: {"messages": talk}),
    "prompts": TALK.map(lambda talk: {"messages": talk}),
    "pairs": st.builds(lambda talk, one, other: {"messages": talk, "chosen": one, "rejected": other}, TALK, SAID, SAID),
    "feedback": st.builds(lambda talk, said, liked: {"messages": talk + said, "desirable": liked},
                          TALK, SAID | st.just([]), st.booleans()),
}  # fmt: skip
GOOD = {
    "chat": {"messages": SHORT},
    "prompts": {"messages": SHORT},
    "pairs": {"messages": SHORT[:1], "chosen": SHORT[1:], "rejected": SHORT[1:]},
    "feedback": {"messages": SHORT, "desirable": True},
}
ANSWERED = set("0123456789") | set("<think>\n\n</think>\n\n<|im_end|>")
"""What answers and their marks are written with; questions have none of it but line breaks."""
BROKEN = st.sampled_from([{"bad": "is no example"}, {"empty": True}])


@pytest.mark.parametrize("stage", BUILD)
def test_every_row_read_is_used_or_dropped_for_one_reason_and_only_answers_are_trained(
    stage, example_run, tokenizer, report
):
    reasons = set()

    @settings(
        max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        st.lists(EXAMPLES[stage] | BROKEN, max_size=8),
        st.integers(45, 90),
        st.sampled_from(["truncate", "drop", "split"]),
        st.sampled_from([{}, {"train_on_prompt": True}, {"mask_history": True}]),
        st.sampled_from([PLAIN, REWRITING]),
        st.integers(1, 5),
    )
    def check(examples, limit, policy, flags, template, batch):
        flags = {} if stage in ("pairs", "feedback") else flags  # they refuse them
        run = example_run(
            [*examples, GOOD[stage]], template, cutoff_len=limit, cutoff_policy=policy, on_bad_row="skip",
            preprocessing_batch_size=batch, **flags,
        )  # fmt: skip
        rows = BUILD[stage](run, "train")
        facts = of_data(report, run)
        dropped = {reason: num for reason, num in facts.items() if reason.startswith("dropped")}
        reasons.update(dropped)
        assert facts["rows_read"] == len(examples) + 1 == facts["rows_used"] + sum(dropped.values())
        for row in rows:
            for prefix in (
                ("chosen_", "rejected_") if stage == "pairs" else ("kl_", "") if stage == "feedback" else ("",)
            ):
                assert len(row[f"{prefix}input_ids"]) <= limit
                if stage == "prompts":
                    continue  # a reference may be any answer
                elif stage == "chat" and "train_on_prompt" in flags:
                    assert not (row["labels"] == tokenizer("!").input_ids[0]).any()
                    continue
                else:
                    written = trained_texts(tokenizer, row, prefix)
                for text in written:
                    assert set(text) <= ANSWERED, text

    check()
    assert {"dropped: malformed", "dropped: empty"} <= reasons
    assert reasons & {"dropped: too long", "dropped: nothing to learn", "dropped: nothing to learn within cutoff_len"}


# Long rows


def test_truncate_cuts_after_the_last_answer_that_fits_at_every_length(example_run, tokenizer):
    talk = [{"messages": turns("ab", "12", "abc", "345", "c", "6")}]
    whole = build_chat(example_run(talk, cutoff_len=999), "train")[0]["input_ids"]
    end = tokenizer("<|im_end|>").input_ids[0]
    stops = (np.flatnonzero(whole == end) + 1).tolist()[1::2]  # after each answer; those between end questions
    assert len(stops) == 3
    start = stops[0] - len(tokenizer("12<|im_end|>").input_ids)
    for limit in range(2, len(whole) + 1):
        for flags in ({}, {"train_on_prompt": True}):
            run = example_run(talk, cutoff_len=limit, **flags)
            fits = len(whole) if limit >= len(whole) else max((stop for stop in stops if stop <= limit), default=limit)
            if limit > start or flags:
                (row,) = build_chat(run, "train")
                assert row["input_ids"].tolist() == whole[:fits].tolist()
            else:
                with pytest.raises(ftk.DataError, match="1 dropped: nothing to learn"):
                    build_chat(run, "train")


@pytest.mark.parametrize("policy", ["truncate", "split"])
def test_a_medium_is_whole_or_not_there_at_every_length(policy, example_run, tokenizer):
    mark = tokenizer("!").input_ids[0]
    content = ["a", ["image", "5"], "b", ["image", "7"]]
    talk = [{"messages": [{"role": "user", "content": content}, *turns("a", "12", ["c", ["image", "3"]], "3")[1:]]}]
    seen = set()
    for limit in range(7, 60):
        run = example_run(talk, cutoff_len=limit, cutoff_policy=policy, train_on_prompt=True)
        for row in build_chat(run, "train"):
            sizes = [int(one.source) for one in row.get("media", ())]
            runs = [len(run) for run in "".join("!" if t == mark else " " for t in row["input_ids"]).split()]
            assert sum(runs) == sum(sizes)
            assert not (row["labels"] == mark).any()
            seen.add(tuple(sizes))
    assert {(5, 7), (5, 7, 3)} <= seen


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("truncate", "dropped: an image, video or audio is longer than cutoff_len"),
        ("drop", "dropped: too long"),
        ("split", "dropped: an image, video or audio is longer than cutoff_len"),
    ],
)
def test_a_row_whose_medium_alone_is_too_long_is_dropped_with_the_reason(policy, reason, example_run, report):
    talk = {"messages": turns([["image", "50"]], "12")}
    run = example_run([talk, GOOD["chat"]], cutoff_len=40, cutoff_policy=policy)
    assert len(build_chat(run, "train")) == 1
    assert of_data(report, run)[reason] == 1


def test_what_follows_a_medium_that_fits_nowhere_is_counted_when_a_row_is_split(example_run, report):
    talk = {"messages": turns("a", "12", [["image", "50"]], "3456")}
    run = example_run([talk], cutoff_len=40, cutoff_policy="split")
    assert len(build_chat(run, "train")) == 1
    facts = of_data(report, run)
    assert facts["partly dropped: an image, video or audio is longer than cutoff_len"] == facts["split"] == 1


def test_split_makes_rows_of_every_token_but_those_without_an_answer(example_run):
    talk = [{"messages": turns("a" * 50, "123" * 30)}]
    whole = build_chat(example_run(talk, cutoff_len=999), "train")[0]
    parts = build_chat(example_run(talk, cutoff_len=20, cutoff_policy="split"), "train")
    assert all(len(part["input_ids"]) <= 20 for part in parts)
    trained = np.concatenate([part["labels"] for part in parts])
    assert trained[trained != -100].tolist() == whole["labels"][whole["labels"] != -100].tolist()


LONG = {
    "chat": {"messages": turns("a", "123" * 30)},
    "prompts": {"messages": turns("abc" * 30, "1")},
    "pairs": {"messages": turns("a"), "chosen": SHORT[1:], "rejected": turns("a", "123" * 30)[1:]},
    "feedback": {"messages": turns("a", "123" * 30), "desirable": False},
}


@pytest.mark.parametrize("stage", LONG)
def test_drop_and_error_hold_in_every_stage(stage, example_run, report):
    run = example_run([GOOD[stage], LONG[stage]], cutoff_len=40, cutoff_policy="drop")
    assert len(BUILD[stage](run, "train")) == 1
    assert of_data(report, run)["dropped: too long"] == 1
    run = example_run([GOOD[stage], LONG[stage]], cutoff_len=40, cutoff_policy="error")
    with pytest.raises(ftk.DataError, match=r"rows\.jsonl:2: has \d+ tokens, more than cutoff_len 40"):
        BUILD[stage](run, "train")


@pytest.mark.parametrize(("stage", "policy"), [("pairs", "split"), ("feedback", "split"), ("prompts", "truncate"),
                                               ("prompts", "split")])  # fmt: skip
def test_what_would_be_spoilt_by_a_cut_is_dropped(stage, policy, example_run, report):
    """A pair in pieces prefers nothing, and half a prompt asks for something else."""
    run = example_run([GOOD[stage], LONG[stage]], cutoff_len=40, cutoff_policy=policy)
    assert len(BUILD[stage](run, "train")) == 1
    assert of_data(report, run)["dropped: too long"] == 1


@pytest.mark.parametrize("stage", ["pairs", "feedback"])
def test_truncated_answers_stay_with_their_prompt(stage, example_run, report):
    run = example_run([LONG[stage], GOOD[stage]], cutoff_len=40)
    row = BUILD[stage](run, "train")[0]
    long = row["rejected_input_ids"] if stage == "pairs" else row["input_ids"]
    assert len(long) == 40
    assert of_data(report, run)["truncated"] == 1


def test_a_prompt_is_measured_without_its_reference_answer(example_run, tokenizer):
    answer = "123" * 30
    (row,) = build_prompts(example_run([{"messages": turns("a", answer)}], cutoff_len=30), "train")
    assert tokenizer.decode(row["labels"]) == answer + "<|im_end|>"
    assert tokenizer.decode(row["input_ids"]) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"


def test_a_prompt_without_an_answer_ends_where_the_answer_begins(example_run, tokenizer):
    (row,) = build_prompts(example_run([{"messages": turns("a", "1", "b")}]), "train")
    assert tokenizer.decode(row["input_ids"]).endswith("b<|im_end|>\n<|im_start|>assistant\n")
    assert len(row["labels"]) == 0


@pytest.mark.parametrize(("policy", "expected"), [("truncate", [10]), ("drop", None), ("split", [10, 10, 10])])
def test_policies_hold_for_text_without_packing(policy, expected, example_run):
    run = example_run([{"text": "1" * 29}], cutoff_len=10, cutoff_policy=policy, packing=False)
    if expected:
        assert [len(row["input_ids"]) for row in build_text(run, "train")] == expected
    else:
        with pytest.raises(ftk.DataError, match="1 dropped: too long"):
            build_text(run, "train")


def test_a_kl_row_is_no_longer_than_any_other(example_run):
    rows = [LONG["feedback"], {"messages": turns("abc" * 10, "1"), "desirable": True}]
    made = build_feedback(example_run(rows, cutoff_len=60), "train")
    assert len(made[1]["kl_input_ids"]) == 60
    assert all((row["kl_labels"] != -100).any() for row in made)


# Flags and weights


@pytest.mark.parametrize("template", [PLAIN, REWRITING])
def test_flags_and_weights_reach_the_tokens(template, example_run, tokenizer):
    talk = turns("a", "11", "b", "22", "c", "33", "a", "44")
    for number, (flag, weight) in enumerate([(None, 0.5), (False, 1.0), (True, 3.0), (None, 1.0)]):
        talk[2 * number + 1] |= {"trained": flag, "weight": weight}
    found = {}
    for row in build_chat(example_run([{"messages": talk}], template), "train"):
        weights = row.get("loss_weights", np.ones(len(row["labels"]), np.float32))
        assert weights.dtype == np.float32
        assert (weights[row["labels"] == -100] == 1).all()
        for text in trained_texts(tokenizer, row):
            answer = re.search(r"\d\d", text)[0]
            digits = [i for i, label in enumerate(row["labels"]) if label != -100]
            inside = [i for i in digits if tokenizer.decode(row["labels"][i : i + 1]) in answer]
            found[answer] = set(weights[inside].tolist())
    assert found == {"11": {0.5}, "33": {3.0}, "44": {1.0}}


def test_rows_that_all_weigh_one_say_nothing_of_weights(example_run):
    heavy = turns("a", "1")
    heavy[1]["weight"] = 2.0
    rows = build_chat(example_run([{"messages": SHORT}, {"messages": heavy}]), "train")
    assert ["loss_weights" in row for row in rows] == [False, True]


def test_packed_rows_keep_their_weights(example_run):
    heavy = turns("a", "1")
    heavy[1]["weight"] = 2.0
    examples = [{"messages": SHORT}, {"messages": heavy}]
    plain = build_chat(example_run(examples), "train")
    (packed,) = build_chat(example_run(examples, packing=True, cutoff_len=200), "train")
    alone = [row.get("loss_weights", np.ones(len(row["labels"]))) for row in plain]
    assert packed["loss_weights"].tolist() == np.concatenate(alone).tolist()


@pytest.mark.parametrize("template", [PLAIN, REWRITING])
def test_mask_history_trains_the_last_answer_and_keeps_its_flag(template, example_run, tokenizer, report):
    talk = turns("a", "11", "b", "22")
    last = {"messages": [*talk[:3], {**talk[3], "trained": False}]}
    run = example_run([{"messages": talk}, last], template, mask_history=True)
    (row,) = build_chat(run, "train")
    (text,) = trained_texts(tokenizer, row)
    assert text.endswith("22<|im_end|>")
    assert "11" not in text
    assert of_data(report, run)["dropped: nothing to learn"] == 1


def test_train_on_prompt_changes_no_prompts(example_run):
    plain, with_it = (
        build_prompts(example_run([GOOD["prompts"]], **flags), "train")[0] for flags in ({}, {"train_on_prompt": True})
    )
    assert {key: str(value) for key, value in plain.items()} == {key: str(value) for key, value in with_it.items()}


@pytest.mark.parametrize("key", ["train_on_prompt", "mask_history", "neat_packing"])
def test_what_has_no_meaning_for_pairs_feedback_and_texts_is_refused(key, example_run):
    """LLaMA-Factory's rule (reference section 2, get_train); ``neat_packing`` packs whole documents here."""
    for stage in ("pairs", "feedback"):
        with pytest.raises(ftk.ConfigError, match=f"{key}: True: has no meaning for rows of {stage}. Take it out"):
            BUILD[stage](example_run([GOOD[stage]], **{key: True}), "train")
    if key != "neat_packing":
        with pytest.raises(ftk.ConfigError, match=f"{key}: True: has no meaning for rows of text"):
            build_text(example_run([{"text": "one"}], **{key: True}), "train")


def test_packing_in_a_stage_that_does_not_pack_is_told(example_run, caplog):
    assert len(BUILD["prompts"](example_run([GOOD["prompts"]] * 2, packing=True), "train")) == 2
    assert "packing: True: rows of prompts are not packed" in caplog.text


def test_packed_pairs_stay_whole_and_each_side_of_a_pack_fits(example_run):
    rows = [{**GOOD["pairs"], "messages": turns(f"question {number}" * number)} for number in (1, 4, 2, 3)]
    single = build_pairs(example_run(rows), "train")
    size = int(single.lengths_N.max() + single.lengths_N.min())
    packed = build_pairs(example_run(rows, packing=True, cutoff_len=size), "train")
    members = [pair for row in packed for pair in row["pairs"]]
    assert len(packed) < len(single) == len(members)
    for number, row in enumerate(packed):
        longer = [max(len(pair["chosen_input_ids"]), len(pair["rejected_input_ids"])) for pair in row["pairs"]]
        assert sum(longer) == packed.lengths_N[number] <= size
    texts = [{key: list(value) for key, value in row.items()} for row in members]
    assert all({key: list(value) for key, value in row.items()} in texts for row in single)


def test_the_history_of_a_pair_is_not_trained(example_run, tokenizer):
    pair = {"messages": turns("a", "11", "b"), "chosen": SHORT[1:], "rejected": turns("x", "2")[1:]}
    (row,) = build_pairs(example_run([pair]), "train")
    assert trained_texts(tokenizer, row, "chosen_") == ["1<|im_end|>"]
    assert trained_texts(tokenizer, row, "rejected_") == ["2<|im_end|>"]


def test_a_pair_that_the_template_writes_as_several_rows_is_refused(example_run):
    longer = turns("a", "1", "b", "2")[1:]
    longer[0]["reasoning"] = longer[2]["reasoning"] = "9"
    pair = {"messages": turns("a"), "chosen": longer, "rejected": SHORT[1:]}
    with pytest.raises(ftk.DataError, match="several rows, which belong to no pair"):
        build_pairs(example_run([pair], REWRITING), "train")
