"""Rows, masks, policies, mixing, packing, cache and report of ftk-data.

References: the tokenizer itself on the whole text, LLaMA-Factory's own outputs (golden/llamafactory_cases.jsonl), the
token counts that three peers agree on (reference/baselines.md section 3), and counts made by hand.
"""

import gc
import json
from pathlib import Path
from random import Random

import ftk
import numpy as np
import pytest
from ftk_data import DataOptions, TemplateOptions, renderer, shards
from ftk_data.encoding import Encoder
from ftk_data.mixing import mixed, split_off
from ftk_data.packing import packs
from ftk_data.reading import Sampled
from ftk_data.rendering import declared
from ftk_data.rows import build_chat, build_text
from ftk_data.stages import with_flags

SHARED = Path(__file__).parents[4] / "shared"


def trained(tokenizer, row):
    return tokenizer.decode([token for token in row["labels"].tolist() if token != -100])


# Rows and masks


def test_a_row_is_the_render_and_trains_the_answer_with_its_stop_token(make_run, tokenizer):
    row = build_chat(make_run(), "train")[0]
    expected = "<|im_start|>user\nSay one<|im_end|>\n<|im_start|>assistant\none is what I say<|im_end|>\n"
    assert tokenizer.decode(row["input_ids"]) == expected
    assert trained(tokenizer, row) == "one is what I say<|im_end|>"
    assert set(row) == {"input_ids", "labels"}


def test_train_on_prompt_trains_everything_and_keeps_the_tokens(make_run):
    plain, whole = build_chat(make_run(), "train")[0], build_chat(make_run(train_on_prompt=True), "train")[0]
    assert whole["input_ids"].tolist() == plain["input_ids"].tolist() == whole["labels"].tolist()


def test_mask_history_trains_the_last_answer_only():
    turns = [ftk.Message(role, "x") for role in ("user", "assistant", "user", "assistant")]
    flagged = with_flags(turns, DataOptions(mask_history=True))
    assert [message.trained for message in flagged] == [False, False, False, None]


def test_no_token_straddles_the_start_of_an_answer(tokenizer):
    """ "ay" is one token, so a tokenizer that saw "Say" whole would not split it there."""
    batch = Encoder(tokenizer).rows([[ftk.Segment("S", False), ftk.Segment("ay", True)]])
    assert tokenizer.decode(batch.ids_T[batch.trained_T]) == "ay"
    assert len(batch.ids_T) > len(tokenizer("Say").input_ids)


@pytest.mark.parametrize("name", ["phi-3", "llama-bpe", "qwen2", "deepseek-llm", "gpt-2"])
def test_segments_encode_as_the_whole_text_does_where_a_boundary_allows_it(shared_tokenizer, name):
    """SentencePiece puts a space in front of a text; a segment inside a row must not get one."""
    tokenizer = shared_tokenizer(name)
    texts = ["Question: why is that so", " Because of the weather", " Question: and tomorrow", " Nobody knows"]
    row = [ftk.Segment(text, bool(number % 2)) for number, text in enumerate(texts)]
    whole = tokenizer("".join(texts), add_special_tokens=False).input_ids
    assert Encoder(tokenizer).rows([row]).ids_T.tolist() == whole


def lf_cases():
    path = SHARED / "golden" / "llamafactory_cases.jsonl"
    cases = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [
        case
        for case in cases
        if case["kind"] == "sft_tokenized" and case["template"] in ("qwen", "llama3")
        and not {"cutoff_len", "train_on_prompt"} & set(case["data_args"])
    ]  # fmt: skip


@pytest.mark.parametrize("case", lf_cases() or [None])
def test_tokens_and_labels_are_llamafactorys_but_for_the_newline_after_the_stop_token(case, shared_tokenizer):
    if case is None:
        pytest.skip("golden/llamafactory_cases.jsonl is not there")
    plugin = pytest.importorskip({"qwen": "ftk_template_qwen", "llama3": "ftk_template_llama"}[case["template"]])
    spec = next(spec for spec in plugin.ftk_chat_templates() if spec.name == case["template"])
    tokenizer = shared_tokenizer(case["tokenizer"])
    for key, value in case["special"].items():
        setattr(tokenizer, key, value)
    newline = tokenizer("\n").input_ids[0] if case["template"] == "qwen" else None
    given = case["input"]
    for i, prompt in enumerate(given["_prompt"]):
        turns = [ftk.Message(turn["role"], turn["content"]) for turn in [*prompt, *given["_response"][i]]]
        if given["_system"][i]:
            turns.insert(0, ftk.Message("system", given["_system"][i]))
        flagged = with_flags(turns, DataOptions(**case["data_args"]))
        batch = Encoder(tokenizer).rows(declared(spec, tokenizer, TemplateOptions()).render(flagged))
        labels = np.where(batch.trained_T, batch.ids_T, -100).tolist()
        assert batch.ids_T.tolist() == case["expected"]["input_ids"][i]
        assert labels == [-100 if label == newline else label for label in case["expected"]["labels"][i]]


# What happens to long and bad rows


def test_truncate_keeps_whole_turns_and_counts(tokenizer, make_run, report):
    history = [{"instruction": "Say two", "output": "two is what I say", "history": [["Say one", "one"]]}]
    entry = {"columns": {"prompt": "instruction", "response": "output", "history": "history"}}
    run = make_run(history, dataset=[{"file_name": "rows.jsonl", **entry}], dataset_dir="unused")
    whole = build_chat(make_inline(run, make_run, history, entry), "train")[0]
    assert len(trained(tokenizer, whole).split("<|im_end|>")) == 3
    cut = make_inline(run, make_run, history, entry, cutoff_len=len(whole["input_ids"]) - 3)
    row = build_chat(cut, "train")[0]
    assert trained(tokenizer, row) == "one<|im_end|>"
    assert tokenizer.decode(row["input_ids"]).endswith("one<|im_end|>")
    assert report(cut)["train"]["datasets"]["inline-1"]["truncated"] == 1


def make_inline(run, make_run, rows, entry, **settings):
    """A run with an inline entry for the file that ``make_run`` writes."""
    file = str(run.output_dir.parent / "rows.jsonl")
    return make_run(rows, dataset=[{"file_name": file, **entry}], **settings)


def test_a_first_turn_that_does_not_fit_is_cut_where_the_row_ends(make_run):
    rows = build_chat(make_run(cutoff_len=15), "train")
    assert [len(row["input_ids"]) for row in rows] == [15] * 4
    assert all((row["labels"] != -100).any() for row in rows)


def test_drop_leaves_long_rows_out_and_counts_them(make_run, report, rows):
    long = {"instruction": "Say", "input": "", "output": "one " * 200}
    run = make_run([*rows, long], cutoff_policy="drop", cutoff_len=128)
    assert len(build_chat(run, "train")) == 4
    assert report(run)["train"]["datasets"]["rows"]["dropped: too long"] == 1


def test_split_loses_no_token(make_run):
    long = [{"instruction": "Say", "input": "", "output": "one " * 200}]
    whole = build_chat(make_run(long, cutoff_len=4096), "train")[0]
    parts = build_chat(make_run(long, cutoff_len=64, cutoff_policy="split", train_on_prompt=True), "train")
    assert len(parts) > 1
    assert np.concatenate([part["input_ids"] for part in parts]).tolist() == whole["input_ids"].tolist()


def test_error_names_the_long_row(make_run, rows):
    rows = [*rows, {"instruction": "Say", "input": "", "output": "one " * 200}]
    with pytest.raises(ftk.DataError, match=r"rows: rows\.jsonl:5: has \d+ tokens, more than cutoff_len 64"):
        build_chat(make_run(rows, cutoff_policy="error", cutoff_len=64), "train")


def test_rows_without_a_trained_token_are_dropped_and_counted(make_run, report, rows):
    rows = [*rows, {"instruction": "one " * 200, "input": "", "output": "yes"}]
    run = make_run(rows, cutoff_len=64)
    assert len(build_chat(run, "train")) == 4
    assert report(run)["train"]["datasets"]["rows"]["dropped: nothing to learn within cutoff_len"] == 1


def test_a_malformed_row_stops_the_run_and_says_where_and_what_to_do(make_run, rows):
    lines = json.dumps(rows[0]) + '\n{"instruction": "Say\n' + json.dumps(rows[1]) + "\n"
    with pytest.raises(ftk.DataError, match=r"rows: .*rows\.jsonl:2: is no JSON: .*on_bad_row skip"):
        build_chat(make_run(lines=lines), "train")


def test_skipping_goes_on_after_rows_that_do_not_parse_or_convert(make_run, report, rows):
    lines = json.dumps(rows[0]) + '\n{"instruction": "Say\n' + json.dumps({**rows[1], "output": 7}) + "\n"
    run = make_run(lines=lines + json.dumps(rows[2]) + "\n", on_bad_row="skip")
    assert len(build_chat(run, "train")) == 2
    assert report(run)["train"]["datasets"]["rows"]["dropped: malformed"] == 2


def test_a_missing_column_names_the_columns_there_are(make_run):
    with pytest.raises(ftk.DataError, match=r"rows: rows\.jsonl:1: has no column 'output'.*instruction, answer"):
        build_chat(make_run([{"instruction": "Say", "answer": "one"}]), "train")


def test_nothing_left_is_an_error_that_says_why(make_run):
    with pytest.raises(ftk.DataError, match=r"no row is left to train on \(rows: 1 dropped: empty\)"):
        build_chat(make_run([{"instruction": "Say", "input": "", "output": None}]), "train")


def test_text_for_a_stage_that_wants_conversations_is_refused(make_run, tmp_path):
    (tmp_path / "some.txt").write_text("a line\n")
    entry = {"file_name": str(tmp_path / "some.txt"), "columns": {"prompt": "text"}}
    with pytest.raises(ftk.ConfigError, match=r"holds text .*wants conversations"):
        build_chat(make_run(dataset=[entry]), "train")


# Mixing and splitting


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("concat", [0, 1, 2, 3, 4]),
        ("interleave_under", [0, 3, 1, 4]),
        ("interleave_over", [0, 3, 1, 4, 2, 3]),
        ("interleave_once", [0, 3, 1, 4, 2]),
    ],
)
def test_mixing_three_rows_with_two_in_turn(strategy, expected):
    assert mixed([3, 2], DataOptions(mix_strategy=strategy), 0).tolist() == expected


def test_interleave_over_repeats_the_smaller_set():
    order = mixed([5, 1], DataOptions(mix_strategy="interleave_over"), 0).tolist()
    assert sorted(set(order)) == list(range(6))
    assert order.count(5) == 5


@pytest.mark.parametrize(
    ("strategy", "theirs"),
    [
        ("interleave_under", "first_exhausted"),
        ("interleave_over", "all_exhausted"),
        ("interleave_once", "all_exhausted_without_replacement"),
    ],
)
def test_interleaved_rows_come_as_the_datasets_library_orders_them(strategy, theirs):
    datasets = pytest.importorskip("datasets")
    random = Random(strategy)
    for seed in range(8):
        sizes = [random.randrange(1, 9) for _ in range(random.randrange(2, 5))]
        offsets = [sum(sizes[:number]) for number in range(len(sizes))]
        sets = [datasets.Dataset.from_dict({"n": range(o, o + size)}) for o, size in zip(offsets, sizes, strict=True)]
        for shares in (None, [random.random() + 0.1 for _ in sizes]):
            chances = shares and [share / sum(shares) for share in shares]
            wanted = datasets.interleave_datasets(sets, chances, seed=seed, stopping_strategy=theirs)["n"]
            options = DataOptions(mix_strategy=strategy, interleave_probs=shares)
            assert mixed(sizes, options, seed).tolist() == list(wanted), (sizes, shares)


def test_interleave_probs_set_the_shares():
    options = DataOptions(mix_strategy="interleave_under", interleave_probs="0.8,0.2")
    order = mixed([10_000, 10_000], options, 7)
    assert abs((order < 10_000).mean() - 0.8) < 0.02
    assert order.tolist() == mixed([10_000, 10_000], options, 7).tolist()


@pytest.mark.parametrize("strategy", ["interleave_under", "interleave_over", "interleave_once"])
def test_a_set_without_a_share_is_never_drawn(strategy):
    assert mixed([3, 2], DataOptions(mix_strategy=strategy, interleave_probs="1,0"), 0).tolist() == [0, 1, 2]


def test_interleave_probs_need_one_number_each():
    options = DataOptions(mix_strategy="interleave_under", interleave_probs=[0.5, 0.3, 0.2])
    with pytest.raises(ftk.ConfigError, match="3 numbers for 2 data sets"):
        mixed([1, 1], options, 0)


def test_rows_of_one_example_stay_on_one_side_of_a_split():
    examples = np.repeat(np.arange(50), 3)
    train, aside = split_off(np.arange(150), examples, 0.2, seed=1)
    assert len(aside) == 30
    assert not set(examples[train]) & set(examples[aside])


def test_val_size_gives_eval_what_train_does_not_have(make_run, tokenizer, report):
    run = make_run(val_size=1)
    train, held = build_chat(run, "train"), build_chat(run, "eval")
    texts = [tokenizer.decode(row["input_ids"]) for row in (*train, *held)]
    assert (len(train), len(held), len(set(texts))) == (3, 1, 4)
    assert report(run)["eval"]["num_rows"] == 1


def test_an_eval_that_nobody_asked_for_is_empty(make_run):
    assert len(build_chat(make_run(), "eval")) == 0


def test_each_data_set_is_evaluated_on_what_was_set_aside_of_it(make_run, tmp_path):
    file = str(tmp_path / "rows.jsonl")
    both = [{"name": "one", "file_name": file}, {"name": "two", "file_name": file, "num_samples": 3}]
    run = make_run(dataset=both, val_size=3, eval_on_each_dataset=True)
    train, held = build_chat(run, "train"), build_chat(run, "eval")
    assert sum(map(len, held.values())) == 3
    assert len(train) == 4 + 3 - 3
    given = make_run(eval_dataset=both, eval_on_each_dataset=True)
    assert {name: len(rows) for name, rows in build_chat(given, "eval").items()} == {"one": 4, "two": 3}


def test_max_samples_and_num_samples_choose_rows(make_run, tmp_path):
    assert len(build_chat(make_run(max_samples=2), "train")) == 2
    entry = {"file_name": str(tmp_path / "rows.jsonl"), "num_samples": 6}
    assert len(build_chat(make_run(dataset=[entry]), "train")) == 6
    with pytest.raises(ftk.ConfigError, match="ranking: expected true or false, found 'yes'"):
        build_chat(make_run(dataset=[{**entry, "ranking": "yes"}]), "train")


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("num", [1, 3, 10, 25])
def test_num_samples_keeps_no_row_that_it_does_not_take(counted, num):
    class Source:
        def __iter__(self):
            return iter([{"n": number} for number in range(10)])

        def fingerprint(self):
            return "x"

    if counted:
        Source.__len__ = lambda self: 10
    chosen = Sampled(Source(), num, 3)
    numbers = [row["n"] for row in chosen]
    assert len(chosen) == len(numbers) == num
    assert len(set(numbers)) == min(num, 10)
    assert numbers == [row["n"] for row in Sampled(Source(), num, 3)]
    assert [row["n"] for row in chosen.at(num - 1)] == numbers[-1:]
    if counted:
        assert len(chosen._read) == len(set(numbers))


def test_val_size_and_data_sets_for_evaluation_exclude_each_other(make_run, tmp_path):
    """LLaMA-Factory's rule (reference section 2)."""
    with pytest.raises(ftk.ConfigError, match="val_size and eval_dataset exclude each other"):
        make_run(val_size=1, eval_dataset=str(tmp_path / "rows.jsonl"))


def test_training_and_evaluation_data_of_one_name_are_both_noted(make_run, tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "rows.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    run, noted = make_run(eval_dataset=str(tmp_path / "eval" / "rows.jsonl")), {}
    run.record = lambda **facts: noted.update(facts)
    build_chat(run, "train")
    build_chat(run, "eval")
    assert {name: fact["num_rows"] for name, fact in noted["data"].items()} == {"rows": 4, "rows (eval)": 1}


def test_data_without_rows_says_which(make_run):
    with pytest.raises(ftk.DataError, match=r"no row is left to train on \(rows: has no rows\)"):
        build_chat(make_run(lines="\n"), "train")


# Packing


def test_packs_hold_every_row_once_within_capacity_and_nearly_full():
    lengths = np.random.default_rng(0).integers(1, 200, 2000).tolist()
    made = packs(lengths, 256)
    assert sorted(row for pack in made for row in pack) == list(range(2000))
    assert max(sum(lengths[row] for row in pack) for pack in made) <= 256
    assert len(made) <= 1.02 * sum(lengths) / 256


def test_packed_rows_restart_positions_and_keep_every_document(make_run):
    plain = build_chat(make_run(), "train")
    packed = build_chat(make_run(packing=True, cutoff_len=4096), "train")
    assert len(packed) == 1
    row = packed[0]
    assert row["input_ids"].tolist() == np.concatenate([one["input_ids"] for one in plain]).tolist()
    assert row["position_ids"].tolist() == np.concatenate([np.arange(len(one["labels"])) for one in plain]).tolist()
    assert row["labels"].tolist() == np.concatenate([one["labels"] for one in plain]).tolist()


def test_packing_efficiency_is_reported(make_run, report):
    run = make_run(neat_packing=True, cutoff_len=256)
    rows = build_chat(run, "train")
    total = report(run)["train"]["num_tokens"]
    assert report(run)["train"]["packing_efficiency"] == round(total / (len(rows) * 256), 4)


# Text


def text_run(make_run, tmp_path, **settings):
    (tmp_path / "some.txt").write_text("one two\nthree\nfour is what I say\n")
    return make_run(dataset=[{"file_name": str(tmp_path / "some.txt"), "columns": {"prompt": "text"}}], **settings)


def test_text_is_one_stream_in_blocks_with_end_tokens(make_run, tmp_path, tokenizer):
    rows = build_text(text_run(make_run, tmp_path, cutoff_len=5), "train")
    stream = np.concatenate([row["input_ids"] for row in rows])
    assert tokenizer.decode(stream) == "one two<|im_end|>three<|im_end|>four is what I say<|im_end|>"
    assert [len(row["input_ids"]) for row in rows][:-1] == [5] * (len(rows) - 1)
    assert all((row["labels"] == row["input_ids"]).all() for row in rows)


def test_text_without_packing_is_a_row_for_each_document(make_run, tmp_path, tokenizer):
    rows = build_text(text_run(make_run, tmp_path, packing=False), "train")
    assert [tokenizer.decode(row["input_ids"]) for row in rows][1] == "three<|im_end|>"
    assert len(rows) == 3


def test_neatly_packed_text_does_not_train_the_first_token_of_a_document(make_run, tmp_path):
    row = build_text(text_run(make_run, tmp_path, neat_packing=True, cutoff_len=64), "train")[0]
    firsts = np.flatnonzero(row["position_ids"] == 0)
    assert len(firsts) == 3
    assert (row["labels"][firsts] == -100).all()
    assert (np.delete(row["labels"], firsts) != -100).all()


# Cache


def cached_files(tmp_path):
    return sorted((tmp_path / "cache" / "rows").glob("*/*.safetensors"))


def test_cached_rows_are_the_same_and_are_not_made_again(make_run, tmp_path, monkeypatch, report):
    first = [row["labels"].tolist() for row in build_chat(make_run(), "train")]
    assert len(cached_files(tmp_path)) == 1
    monkeypatch.setattr(Encoder, "rows", lambda *_: pytest.fail("tokenised again"))
    run = make_run()
    assert [row["labels"].tolist() for row in build_chat(run, "train")] == first
    assert report(run)["train"]["datasets"]["rows"]["rows_read"] == 4


@pytest.mark.parametrize(
    "change",
    [
        {"cutoff_len": 17},
        {"train_on_prompt": True},
        {"default_system": "Hi"},
        {"enable_thinking": False},
        {"lines": '{"instruction": "Say one", "output": "one"}\n'},
    ],
)
def test_whatever_changes_rows_changes_the_cache_key(make_run, tmp_path, change):
    build_chat(make_run(), "train")
    build_chat(make_run(**change), "train")
    assert len(cached_files(tmp_path)) == 2


def test_what_does_not_change_rows_finds_them_in_the_cache(make_run, tmp_path):
    build_chat(make_run(), "train")
    build_chat(make_run(packing=True, val_size=1, preprocessing_num_workers=2, preprocessing_batch_size=1), "train")
    assert len(cached_files(tmp_path)) == 1


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: raw[:200] + b"XX" + raw[202:]]
)
def test_a_damaged_cache_is_made_again(make_run, tmp_path, damage):
    first = [row["input_ids"].tolist() for row in build_chat(make_run(), "train")]
    (file,) = cached_files(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    assert [row["input_ids"].tolist() for row in build_chat(make_run(), "train")] == first
    assert shards.read(file) is not None


def test_the_number_of_workers_and_the_batch_size_do_not_change_rows(make_run):
    expected = [row["input_ids"].tolist() for row in build_chat(make_run(), "train")]
    run = make_run(preprocessing_num_workers=3, preprocessing_batch_size=1, overwrite_cache=True)
    assert [row["input_ids"].tolist() for row in build_chat(run, "train")] == expected


def test_tokenized_path_is_written_and_read_back(make_run, tmp_path, monkeypatch):
    path = str(tmp_path / "kept")
    first = [row["labels"].tolist() for row in build_chat(make_run(tokenized_path=path), "train")]
    monkeypatch.setattr(Encoder, "rows", lambda *_: pytest.fail("tokenised again"))
    again = build_chat(make_run(rows=[], tokenized_path=path), "train")
    assert [row["labels"].tolist() for row in again] == first


# A bigger oracle, and what the report says


def test_the_demo_data_has_the_tokens_that_its_render_has(make_run, tokenizer, report):
    source = SHARED / "data" / "llamafactory" / "alpaca_en_demo.json"
    if not source.exists():
        pytest.skip(f"{source} is not there")
    run = make_run(dataset=str(source), max_samples=100, cutoff_len=100_000)
    texts = []
    for row in json.loads(source.read_text())[:100]:
        question = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
        texts.append(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{row['output']}<|im_end|>\n")
    counted = sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])
    made = build_chat(run, "train")
    assert sum(len(row["input_ids"]) for row in made) == counted == report(run)["train"]["num_tokens"]
    assert report(run)["train"]["num_trained_tokens"] == sum(int((row["labels"] != -100).sum()) for row in made)


def test_a_conversation_with_tools_is_refused_by_a_template_without(make_run):
    run = make_run()
    with pytest.raises(ftk.DataError, match="holds tools or calls"):
        renderer(run).render([ftk.Message("user", "x")], ({"type": "function"},))


# Speed without another result


def test_short_texts_are_encoded_once(tokenizer, monkeypatch):
    encoder = Encoder(tokenizer)
    calls = []

    class Counting:
        def encode_batch_fast(self, texts, **named):
            calls.append(texts)
            return tokenizer.backend_tokenizer.encode_batch_fast(texts, **named)

    monkeypatch.setattr(encoder, "_backend", Counting())
    long = "a longer text that is not kept"
    for _ in range(2):
        assert encoder.texts(["\n", long, "<|im_end|>"]) == [
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("\n", long, "<|im_end|>")
        ]
    assert calls == [["\n", long, "<|im_end|>"], [long]]
    assert encoder.texts([]) == []


def test_making_rows_leaves_the_garbage_collector_as_it_was(make_run):
    before = gc.get_freeze_count(), gc.isenabled(), gc.get_threshold()
    build_chat(make_run(), "train")
    assert (gc.get_freeze_count(), gc.isenabled(), gc.get_threshold()) == before
