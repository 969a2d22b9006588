"""Rows that are made while training: which come when, what of the source is read, and going on after any of them.

References: the rows that the same options give without streaming (an epoch of the stream is these, in their order when
nothing is shuffled); for going on, the sequence that was not interrupted; and a source that notes what is read of it.
"""

import json
import sys
import threading
from collections import Counter
from itertools import islice
from types import ModuleType

import ftk
import numpy as np
import pytest
from ftk_data import stream_order, stream_rows, stream_source, streaming
from ftk_data.ahead import Ahead
from ftk_data.mixing import _turns
from ftk_data.options import DataOptions
from ftk_data.rows import build_chat, build_feedback, build_pairs, build_prompts, build_text
from ftk_data.stream_order import Turns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


class Noting:
    """Rows of a list or of a function of their number, that notes which were read."""

    def __init__(self, rows, num=None):
        self.row = rows.__getitem__ if num is None else rows
        self.num = len(rows) if num is None else num
        self.read = []

    def __iter__(self):
        return self.at(0)

    def at(self, index):
        for number in range(index, self.num):
            self.read.append(number)
            yield self.row(number)

    def where(self, index):
        return f"row {index + 1}"

    def fingerprint(self):
        raise AssertionError("a digest would need all rows")


class NotSeekable(Noting):
    at = None

    def __iter__(self):
        return Noting.at(self, 0)


SOURCES = {}


@pytest.fixture
def stream(make_example_run, monkeypatch):
    """``stream(build, sets, **settings)``: the rows of a new run over ``{name: rows}``, streamed unless told."""
    module = ModuleType("made_source")
    module.open_rows = lambda entry, run: SOURCES[entry.name]
    monkeypatch.setitem(sys.modules, "made_source", module)
    source = ftk.DatasetSource("made", target="made_source:open_rows", field="made")
    monkeypatch.setattr(stream_source, "STRETCH", 4)
    monkeypatch.setattr(stream_source, "GAP", 3)

    def make(build, sets, split="train", **chosen):
        SOURCES.clear()
        SOURCES.update({name: rows if isinstance(rows, Noting) else Noting(rows) for name, rows in sets.items()})
        entries = [{"name": name, "made": name, "formatting": "spelt"} for name in sets]
        run = make_example_run([], specs=(source,), **{"dataset": entries, "streaming": True, **chosen})
        rows = build(run, split)
        rows.run = run
        return rows

    return make


def texts(name, num, longest=5):
    """Documents of uneven lengths that say where they come from."""
    return [{"text": f"{name}{number} " + "one two " * (number * 7 % longest)} for number in range(num)]


def talk(text, *answers):
    turns = [{"role": "user", "content": f"Say {text}"}]
    for answer in answers:
        turns += [{"role": "assistant", "content": answer}, {"role": "user", "content": "and then"}]
    return {"messages": turns[:-1]}


def chats(name, num):
    return [talk(f"{name}{number}", f"{name}{number} " + "what I say " * (number % 4)) for number in range(num)]


def plain(row):
    """A row as something that can be compared and counted."""
    return json.dumps({key: np.asarray(value).tolist() for key, value in row.items() if key != "media"}, sort_keys=True)


def take(rows, num):
    return [plain(row) for row in islice(rows, num)]


def whole(make, build, sets, **chosen):
    """All rows of the same run without streaming."""
    return [plain(row) for row in make(build, sets, streaming=False, **chosen)]


class Digestible(Noting):
    def fingerprint(self):
        return str([self.row(number) for number in range(self.num)])


def digestible(sets):
    return {name: Digestible(rows) for name, rows in sets.items()}


# Which rows come when

SETS = {"a": texts("a", 9), "b": texts("b", 5), "c": texts("c", 3)}
MIXES = [
    {"mix_strategy": "concat"},
    *[
        {"mix_strategy": f"interleave_{how}", "interleave_probs": shares}
        for how in ("under", "over", "once")
        for shares in (None, "0.5,0.3,0.2")
    ],
]
ALONE = {"packing": False, "buffer_size": 1}


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: " ".join(map(str, mix.values())))
def test_unshuffled_an_epoch_is_the_order_of_the_data_sets_mixed_and_the_next_is_the_same_again(stream, mix):
    wanted = whole(stream, build_text, digestible(SETS), packing=False, **mix)
    assert take(stream(build_text, SETS, **ALONE, **mix), 2 * len(wanted)) == wanted * 2


def test_one_file_unshuffled_comes_in_its_order(stream, tokenizer):
    rows = stream(build_text, {"a": texts("a", 11)}, **ALONE)
    said = [tokenizer.decode(row["input_ids"]).split()[0].removesuffix("<|im_end|>") for row in islice(rows, 11)]
    assert said == [f"a{number}" for number in range(11)]


def test_turns_are_those_of_mixing_from_any_turn_on():
    shares = (0.6, 0.3, 0.1)
    wanted = list(islice(_turns(3, shares, 5), 5000))
    for first in (0, 1, 1023, 1024, 3333):
        turns = Turns(3, shares, 5)
        assert [turns[turn] for turn in range(first, 5000)] == wanted[first:]


def test_data_sets_are_drawn_in_the_proportions_asked_for(stream, tokenizer):
    sets = {name: texts(name, 40) for name in "abc"}
    rows = stream(build_text, sets, mix_strategy="interleave_over", interleave_probs="0.7,0.2,0.1", **ALONE)
    drawn = Counter(tokenizer.decode(row["input_ids"])[0] for row in islice(rows, 3000))
    for name, share in zip("abc", (0.7, 0.2, 0.1), strict=True):
        assert abs(drawn[name] / 3000 - share) < 4 * (share * (1 - share) / 3000) ** 0.5


@pytest.mark.parametrize("how", ["over", "once"])
def test_a_data_set_without_a_share_never_comes_and_nothing_waits_for_it(stream, tokenizer, how):
    sets = {"a": texts("a", 6), "b": texts("b", 6)}
    rows = stream(build_text, sets, mix_strategy=f"interleave_{how}", interleave_probs="1,0", **ALONE)
    assert {tokenizer.decode(row["input_ids"])[0] for row in islice(rows, 30)} == {"a"}


@pytest.mark.parametrize("buffer_size", [2, 7, 100])
def test_an_epoch_has_every_row_once_and_each_epoch_another_order(stream, buffer_size):
    wanted = Counter(whole(stream, build_text, digestible(SETS), packing=False))
    rows = take(stream(build_text, SETS, packing=False, buffer_size=buffer_size), 3 * 17)
    epochs = [rows[:17], rows[17:34], rows[34:]]
    assert [Counter(epoch) for epoch in epochs] == [wanted] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_row_leaves_a_buffer_no_earlier_than_its_size_allows_and_any_row_can_be_first(stream, tokenizer):
    firsts = Counter()
    for seed in range(60):
        rows = stream(build_text, {"a": texts("a", 30)}, packing=False, buffer_size=4, seed=seed)
        order = [int(tokenizer.decode(row["input_ids"])[1:].split()[0].split("<")[0]) for row in islice(rows, 30)]
        assert all(number <= place + 3 for place, number in enumerate(order))
        firsts[order[0]] += 1
    assert set(firsts) == {0, 1, 2, 3}


def test_another_seed_is_another_order_and_the_same_is_the_same(stream):
    one, two = (take(stream(build_text, SETS, packing=False, buffer_size=9, seed=seed), 17) for seed in (1, 2))
    assert one != two
    assert one == take(stream(build_text, SETS, packing=False, buffer_size=9, seed=1), 17)


# How rows are put together


def test_blocks_are_those_of_an_epoch_at_once(stream):
    wanted = whole(stream, build_text, digestible(SETS), cutoff_len=16)
    assert len(wanted) > 5
    assert take(stream(build_text, SETS, cutoff_len=16, buffer_size=1), 2 * len(wanted)) == wanted * 2


@pytest.mark.parametrize("build", [build_chat, build_text])
def test_packs_are_those_of_an_epoch_at_once_when_the_window_holds_it(stream, build):
    sets = SETS if build is build_text else {"a": chats("a", 12), "b": chats("b", 4)}
    chosen = {"neat_packing": True, "cutoff_len": 64}
    wanted = whole(stream, build, digestible(sets), **chosen)
    assert len(wanted) > 2
    assert take(stream(build, sets, buffer_size=1, **chosen), 2 * len(wanted)) == wanted * 2


def test_packs_of_a_window_leave_little_room(stream, report):
    rows = stream(build_text, {"a": texts("a", 3000, 23)}, neat_packing=True, cutoff_len=128, buffer_size=50)
    took = 300
    list(islice(rows, took))
    rows.publish(took, last=True)
    assert report(rows.run)["train"]["packing_efficiency"] > 0.97


def pairs(num):
    said = [{"chosen": [{"role": "assistant", "content": f"yes {n}"}]} for n in range(num)]
    return [{**talk(f"p{n}", "x"), **said[n], "rejected": [{"role": "assistant", "content": "no"}]} for n in range(num)]


@pytest.mark.parametrize(
    ("build", "rows"),
    [
        (build_chat, chats("a", 7)),
        (build_pairs, [{**row, "messages": row["messages"][:1]} for row in pairs(7)]),
        (build_prompts, chats("a", 7)),
    ],
)
def test_rows_of_each_stage_are_those_without_streaming(stream, build, rows):
    wanted = whole(stream, build, digestible({"a": rows}))
    assert take(stream(build, {"a": rows}, buffer_size=1), 14) == wanted * 2


def test_feedback_takes_the_mismatched_answer_from_the_row_before(stream):
    sets = {"a": [{**row, "desirable": bool(number % 2)} for number, row in enumerate(chats("a", 6))]}
    wanted = whole(stream, build_feedback, digestible(sets))
    rows = take(stream(build_feedback, sets, buffer_size=1), 12)
    assert rows[1:6] == wanted[1:]  # the first of all has none before it
    assert rows[6:] == wanted
    first, second = json.loads(rows[0]), json.loads(rows[1])
    assert first["input_ids"] == json.loads(wanted[0])["input_ids"]
    answer = [token for token in second["labels"] if token != -100]
    assert [token for token in first["kl_labels"] if token != -100] == answer


# Going on

ARRANGED = [
    (build_text, {"packing": False}),
    (build_text, {"cutoff_len": 16}),
    (build_text, {"neat_packing": True, "cutoff_len": 24}),
    (build_chat, {"packing": True, "cutoff_len": 64}),
    (build_chat, {"cutoff_policy": "split", "cutoff_len": 12}),
    (build_feedback, {}),
    (build_pairs, {}),
]


def rows_for(build, name, num, bad):
    if build is build_text:
        rows = texts(name, num)
    elif build is build_pairs:
        rows = [{**row, "messages": row["messages"][:1]} for row in pairs(num)]
    else:
        rows = [{**row, "desirable": bool(number % 2)} if build is build_feedback else row
                for number, row in enumerate(chats(name, num))]  # fmt: skip
    return [{"bad": "is bad"} if number in bad else row for number, row in enumerate(rows)]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    arranged=st.sampled_from(ARRANGED),
    mix=st.sampled_from(MIXES),
    sizes=st.lists(st.integers(2, 13), min_size=3, max_size=3),
    buffer_size=st.sampled_from([1, 2, 5, 40]),
    bad=st.sets(st.integers(1, 12), max_size=4),
    limit=st.sampled_from([None, 6]),
    draws=st.sampled_from([3, 1024]),
)
def test_going_on_after_any_row_gives_the_uninterrupted_sequence(
    stream, arranged, mix, sizes, buffer_size, bad, limit, draws
):
    build, more = arranged
    sets = {name: rows_for(build, name, num, bad) for name, num in zip("abc", sizes, strict=True)}
    chosen = {**more, **mix, "buffer_size": buffer_size, "max_samples": limit, "on_bad_row": "skip"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_order, "DRAWS", 1024 if mix.get("interleave_probs") else draws)
        patch.setattr(stream_rows, "WINDOW", 2)
        first = stream(build, sets, **chosen)
        wanted, states = [], [json.dumps(first.state(0))]
        for number, row in enumerate(islice(first, 40), start=1):
            wanted.append(plain(row))
            states.append(json.dumps(first.state(number)))
            if number % 3 == 0:
                first.forget(number - 1)
        again = stream(build, sets, **chosen)
        for number in range(0, 34, 3):
            assert again.restore(json.loads(states[number])) == number
            assert take(again, 6) == wanted[number : number + 6]
            assert all(_same(again.state(later), states[later]) for later in range(number, number + 6))


def _same(ours, theirs):
    """Whether two states go on alike; how far the first pass has been seen depends on what has been read ahead."""
    theirs = json.loads(theirs)
    ours = json.loads(json.dumps(ours))
    for state in (ours, theirs):
        state["sources"] = [place[:4] for place in state.get("sources", [])]
    return ours == theirs


def test_going_on_reads_the_rows_of_the_buffer_alone_however_far_the_training_is(stream, monkeypatch):
    monkeypatch.setattr(streaming, "AHEAD", 1)
    monkeypatch.setattr(stream_source, "STRETCH", 16)
    num_read = []
    for done in (500, 8000):
        chosen = {"packing": False, "buffer_size": 32}
        make = lambda: {"a": Noting(lambda number: {"text": f"a{number}"}, 10_000)}  # noqa: E731
        rows = stream(build_text, make(), **chosen)
        wanted = take(rows, done + 20)
        state = json.loads(json.dumps(rows.state(done)))
        assert len(json.dumps(state)) < 2500
        again = stream(build_text, make(), **chosen)
        source = SOURCES["a"]
        source.read.clear()
        again.restore(state)
        assert take(again, 20) == wanted[done:]
        assert min(source.read) >= done - 32 * 12
        num_read.append(len(source.read))
    assert max(num_read) < 32 * 6 + 100


def test_a_source_that_cannot_seek_is_read_once_from_its_beginning(stream):
    make = lambda: {"a": NotSeekable(texts("a", 60))}  # noqa: E731
    rows = stream(build_text, make(), packing=False, buffer_size=5)
    wanted = take(rows, 50)
    state = rows.state(40)
    again = stream(build_text, make(), packing=False, buffer_size=5)
    again.restore(state)
    SOURCES["a"].read.clear()
    assert take(again, 10) == wanted[40:]
    assert len(SOURCES["a"].read) < 3 * 60  # for the first rows, for the buffer, and from there on


def test_rows_that_changed_since_the_checkpoint_are_refused(stream):
    rows = stream(build_text, {"a": texts("a", 40)}, packing=False, buffer_size=8)
    take(rows, 10)
    state = rows.state(10)
    again = stream(build_text, {"a": texts("a", 6)}, packing=False, buffer_size=8)
    again.restore(state)
    with pytest.raises(ftk.CheckpointError, match=r"a: row .* gives other rows than when the checkpoint was written"):
        take(again, 1)


def test_a_state_of_other_options_is_refused(stream):
    rows = stream(build_text, SETS, packing=False, buffer_size=8)
    with pytest.raises(ftk.CheckpointError, match=r"noted with buffer_size 8, this run has 9"):
        stream(build_text, SETS, packing=False, buffer_size=9).restore(rows.state(0))


def test_iterating_anew_begins_where_it_began(stream):
    rows = stream(build_text, SETS, packing=False, buffer_size=8)
    once = take(rows, 20)
    rows.forget(12)
    assert take(rows, 20) == once


# What is read, and what goes wrong


def test_of_a_million_rows_only_those_in_use_are_read(stream, monkeypatch):
    monkeypatch.setattr(streaming, "AHEAD", 300)
    source = Noting(lambda number: {"text": f"a{number}"}, 1_000_000)
    rows = stream(build_text, {"a": source}, packing=False, buffer_size=100)
    assert len(source.read) <= 8
    assert len(take(rows, 2000)) == 2000
    assert max(source.read) < 2000 + 100 + 20
    assert len(rows._marks) < 2010
    rows.forget(1999)
    assert len(rows._marks) < 12


def test_leaving_a_stream_ends_its_thread(stream):
    rows = stream(build_text, {"a": Noting(lambda number: {"text": "x"}, 10**6)}, packing=False, buffer_size=9)
    running = lambda: "ftk rows" in {thread.name for thread in threading.enumerate()}  # noqa: E731
    stretch = iter(rows)
    next(stretch)
    assert running()
    stretch.close()
    assert not running()
    stretch = iter(rows)
    next(stretch)
    assert running()
    rows.close()
    assert not running()


def test_what_is_made_ahead_is_bounded_and_its_error_comes_in_its_place():
    made = []

    def numbers():
        for number in range(1000):
            made.append(number)
            yield number
            if number == 500:
                raise ValueError("at 500")

    ahead = Ahead(numbers(), lambda item: 2, 10)
    assert [next(ahead) for _ in range(100)] == list(range(100))
    assert len(made) <= 107
    with pytest.raises(ValueError, match="at 500"):
        list(ahead)
    assert next(Ahead([], len, 1), None) is None


@pytest.mark.parametrize("rows", [[], [{"empty": True}] * 9, [{"text": "x " * 50}] * 9])
@pytest.mark.parametrize("strategy", ["concat", "interleave_over"])
def test_nothing_to_train_on_is_an_error_and_no_waiting(stream, rows, strategy):
    chosen = {"cutoff_policy": "drop", "cutoff_len": 20, "packing": False, "mix_strategy": strategy}
    with pytest.raises(ftk.DataError, match="train: no row is left to train on"):
        next(iter(stream(build_text, {"a": rows, "b": rows}, **chosen)))


def test_an_empty_data_set_among_others_is_passed_over(stream):
    sets = {"a": texts("a", 4), "none": [], "b": texts("b", 4)}
    for strategy in ("concat", "interleave_over", "interleave_once"):
        wanted = whole(stream, build_text, digestible(sets), packing=False, mix_strategy=strategy)
        assert take(stream(build_text, sets, mix_strategy=strategy, **ALONE), 16) == wanted * 2


def test_a_malformed_row_stops_when_it_is_reached_and_names_itself(stream):
    rows = [*texts("a", 10), {"bad": "is no good"}, *texts("z", 5)]
    given_out = iter(stream(build_text, {"a": rows}, **ALONE))
    assert len([next(given_out) for _ in range(8)]) == 8
    with pytest.raises(ftk.DataError, match=r"^a: row 11: is no good. Mend the row, or say --on_bad_row skip$"):
        list(given_out)


def test_a_malformed_first_row_is_told_before_the_training(stream):
    with pytest.raises(ftk.DataError, match="b: row 1: is no good"):
        stream(build_text, {"a": texts("a", 9), "b": [{"bad": "is no good"}]}, **ALONE)


def test_the_report_counts_the_first_pass_and_accounts_for_every_row(stream, report):
    rows = [*texts("a", 5), {"bad": "x"}, {"empty": True}, *texts("b", 5), {"text": "x " * 50}, *texts("c", 3)]
    chosen = {"cutoff_policy": "drop", "cutoff_len": 30, "packing": False, "buffer_size": 1, "on_bad_row": "skip"}
    made = stream(build_text, {"a": rows}, **chosen)
    reference = list(islice(made, 40))
    for num in (0, 4, 9, 40):
        made.publish(num)
        told = report(made.run)["train"]
        assert told["num_rows"] == num
        assert told["num_tokens"] == sum(len(row["input_ids"]) for row in reference[:num])
        assert told["num_trained_tokens"] == sum(int((row["labels"] != -100).sum()) for row in reference[:num])
        of_a = told["datasets"].get("a", {})
        lost = sum(count for what, count in of_a.items() if what.startswith("dropped"))
        assert of_a.get("rows_read", 0) == of_a.get("rows_used", 0) + lost
    assert of_a == {"rows_read": 16, "rows_used": 13, "dropped: malformed": 1, "dropped: empty": 1,
                    "dropped: too long": 1}  # fmt: skip
    assert told["epochs_finished"] == 3


# Rows for evaluation


@pytest.mark.parametrize("mix", MIXES[::2], ids=lambda mix: str(mix["mix_strategy"]))
def test_the_first_examples_are_set_aside_and_never_trained(stream, mix):
    chosen = {**ALONE, **mix, "val_size": 4}
    wanted = whole(stream, build_text, digestible(SETS), packing=False, **mix)
    kept = [plain(row) for row in stream(build_text, SETS, split="eval", **chosen)]
    assert Counter(kept) == Counter(wanted[:4])
    trained = take(stream(build_text, SETS, **chosen), 60)
    assert not set(kept) & set(trained)
    if mix["mix_strategy"] == "concat":
        assert trained[: len(wanted) - 4] == wanted[4:]


def test_between_training_and_evaluation_every_row_is_accounted_for(stream, report):
    """Read is 16 rows, of which 13 are good: two bad ones before the fourth good one, one after it."""
    rows = [{"bad": "x"}, *texts("a", 3), {"empty": True}, *texts("b", 5), {"bad": "x"}, *texts("c", 5)]
    chosen = {**ALONE, "val_size": 4, "on_bad_row": "skip"}
    aside = stream(build_text, {"a": rows}, split="eval", **chosen)
    of_eval = report(aside.run)["eval"]["datasets"]["a"]
    made = stream(build_text, {"a": rows}, **chosen)
    for _ in islice(made, 9):
        pass
    made.publish(9)
    of_train = report(made.run)["train"]["datasets"]["a"]
    assert {key: of_eval[key] for key in of_eval if key.startswith(("rows", "dropped"))} == {
        "rows_read": 6, "rows_used": 4, "dropped: malformed": 1, "dropped: empty": 1,
    }  # fmt: skip
    assert of_train == {"rows_read": 10, "rows_used": 9, "dropped: malformed": 1}


def test_all_rows_of_an_example_go_the_same_way(stream):
    chosen = {"cutoff_policy": "split", "cutoff_len": 8, "buffer_size": 1, "packing": False, "val_size": 2}
    sets = {"a": texts("a", 9, 9)}
    wanted = whole(stream, build_text, digestible(sets), **{**chosen, "val_size": 0})
    kept = [plain(row) for row in stream(build_text, sets, split="eval", **chosen)]
    trained = take(stream(build_text, sets, **chosen), len(wanted) - len(kept))
    assert len(kept) > 2
    assert kept + trained == wanted


def test_data_sets_for_evaluation_are_not_streamed(stream, tmp_path, make_example_run):
    entry = {"file_name": str(tmp_path / "rows.jsonl"), "formatting": "spelt"}
    run = make_example_run(chats("a", 5), eval_dataset=[{"name": "e", **entry}], streaming=True)
    assert len(build_chat(run, "eval")) == 5


# Options that have no meaning here


def test_without_max_steps_there_is_an_error_of_one_line(stream, monkeypatch):
    monkeypatch.setattr(streaming, "_value", lambda run, key, default: -1 if key == "max_steps" else default)
    with pytest.raises(ftk.ConfigError, match=r"streaming: .*needs max_steps, because a stream has no length"):
        stream(build_text, SETS)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"val_size": 0.1}, "val_size: .*with streaming it is a number of examples from 1"),
        ({"val_size": 17}, "val_size: 17 of 17 examples leaves none to train on"),
        ({"tokenized_path": "x"}, "streaming: .*tokenized_path can keep none"),
        ({"mix_strategy": "interleave_over", "interleave_probs": "1,2"}, "has 2 numbers for 3 data sets"),
    ],
)
def test_what_streaming_cannot_do_is_refused(stream, chosen, message):
    with pytest.raises(ftk.ConfigError, match=message):
        stream(build_text, SETS, packing=False, **chosen)


def test_the_default_buffer_is_that_of_the_options(stream):
    assert stream(build_text, SETS).state(0)["of"]["buffer_size"] == DataOptions().buffer_size
