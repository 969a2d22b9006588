"""Rows of every stage against what LLaMA-Factory made of the same examples (golden/llamafactory_cases.jsonl).

Where ftk's rows are others on purpose, DEVIATIONS says why and how often. All rows, those that deviate and those that
do not, are compared with the text that WRITTEN spells out by hand after each family's published template, read as a
whole by the tokenizer itself.
"""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ftk.registry import Registry
from ftk_data.packing import packs
from ftk_data.rows import build_chat, build_feedback, build_pairs, build_prompts, build_text
from ftk_data.sequences import together
from ftk_data.store import TokenRow

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "llamafactory_cases.jsonl"
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is not there")

DEVIATIONS = {
    "newline": (
        {"sft_tokenized": 10, "dpo_tokenized": 6, "kto_tokenized": 6, "ppo_tokenized": 3},
        "What the template writes after the stop token is not the model's to learn.",
    ),
    "published": (
        {"sft_tokenized": 28, "sft_packed": 13, "dpo_tokenized": 20, "kto_tokenized": 18, "ppo_tokenized": 9},
        "The family's published template writes other text: llama2 and deepseek a space, phi an end token after the "
        "conversation, alpaca a begin token.",
    ),
    "spaces": (
        {"sft_tokenized": 14, "sft_packed": 5, "dpo_tokenized": 6, "kto_tokenized": 6, "ppo_tokenized": 3},
        "The peer encodes each piece of a row by itself, so that a SentencePiece vocabulary puts a space in front of "
        "each; here there are spaces where the template has them.",
    ),
    "rewritten": (
        {"sft_tokenized": 1, "sft_packed": 2},
        "Qwen3 takes the reasoning out of earlier answers, so each answer has a row of its own, as the model sees it.",
    ),
    "turns": (
        {"sft_tokenized": 6, "dpo_tokenized": 4},
        "A row that is too long keeps its whole turns; the peer cuts questions and answers in proportion "
        "(infer_seqlen), and with mask_history begins with the last.",
    ),
    "dropped": (
        {"sft_tokenized": 20, "dpo_tokenized": 12},
        "A row of which nothing is left to learn is dropped and counted; the peer keeps it.",
    ),
    "order": (
        {"sft_packed": 2},
        "Rows of a pack stand in the order of the data and are not padded; the peer begins with the longest and pads.",
    ),
    "end": (
        {"pt_tokenized": 5},
        "A document ends with the tokenizer's end token, whatever the chat template is.",
    ),
    "begin": (
        {"pt_tokenized": 12},
        "A document has no begin token, and none takes the place of its first word.",
    ),
    "rest": (
        {"pt_tokenized": 6},
        "The last, shorter block of a stream is kept.",
    ),
}
"""What differs → in how many rows of which kind of case, and why."""

DEFAULT = {
    "qwen": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.",
    "vicuna": "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions.",
}


def chatml(system, turns, bos, eos):
    yield f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    for question, answer in turns:
        yield f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        yield f"{answer}<|im_end|>"
        yield "\n"


def llama3(system, turns, bos, eos):
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    yield bos + (f"{head.format('system')}{system}<|eot_id|>" if system else "")
    for question, answer in turns:
        yield f"{head.format('user')}{question}<|eot_id|>{head.format('assistant')}"
        yield f"{answer}<|eot_id|>"
        yield ""


def phi(system, turns, bos, eos):
    yield f"<|system|>\n{system}<|end|>\n" if system else ""
    for number, (question, answer) in enumerate(turns, start=1):
        yield f"<|user|>\n{question}<|end|>\n<|assistant|>\n"
        yield f"{answer}<|end|>"
        yield "\n" + (eos if number == len(turns) else "")


def llama2(system, turns, bos, eos):
    yield ""
    for number, (question, answer) in enumerate(turns):
        first = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system and not number else ""
        yield f"{bos}[INST] {first}{question} [/INST]"
        yield f" {answer} {eos}"
        yield ""


def deepseek(system, turns, bos, eos):
    yield bos + (f"{system}\n\n" if system else "")
    for question, answer in turns:
        yield f"User: {question}\n\nAssistant:"
        yield f" {answer}{eos}"
        yield ""


def alpaca(system, turns, bos, eos):
    yield f"{bos}{system}\n\n"
    for question, answer in turns:
        yield f"### Instruction:\n{question}\n\n### Response:\n"
        yield f"{answer}{eos}"
        yield "\n\n"


def vicuna(system, turns, bos, eos):
    yield system
    for question, answer in turns:
        yield f"USER: {question} ASSISTANT:"
        yield f"{answer}{eos}"
        yield ""


def default(system, turns, bos, eos):
    yield f"System: {system}{eos}\n" if system else ""
    for question, answer in turns:
        yield f"Human: {question}{eos}\nAssistant:"
        yield f"{answer}{eos}"
        yield "\n"


WRITTEN = {
    "qwen": chatml, "qwen3": chatml, "llama3": llama3, "phi": phi, "llama2": llama2, "deepseek": deepseek,
    "alpaca": alpaca, "vicuna": vicuna, "default": default,
}  # fmt: skip
"""Template → (system, [(question, answer)], bos, eos) → the text before, in and after each answer, in turn."""


class Case:
    """A golden case: its examples, the peer's rows, and what ftk's are to be."""

    def __init__(self, case, tokenizer):
        self.kind, self.template, self.tokenizer = case["kind"], case["template"], tokenizer
        self.options, self.given, self.peer = case.get("data_args", {}), case["input"], case["expected"]
        self.limit = self.options.get("cutoff_len", 2048)

    def __len__(self):
        return len(self.given["_prompt"])

    def messages(self, i):
        system = self.given["_system"][i]
        return [*([{"role": "system", "content": system}] if system else []), *self.given["_prompt"][i]]

    def rows(self, i, answer):
        """(ids, labels) of each row of example i with this answer, as long as they are, by hand."""
        said = [turn["content"] for turn in self.given["_prompt"][i]] + [answer]
        turns = list(zip(said[::2], said[1::2], strict=True))
        last_only = self.kind != "sft_tokenized" or self.options.get("mask_history", False)
        last_only = last_only and self.kind != "sft_packed"
        if self.template != "qwen3":
            yield self._row(i, turns, len(turns) - 1 if last_only else 0)
            return
        for number in range(len(turns) - 1 if last_only else 0, len(turns)):
            question, answer = turns[number]
            yield self._row(i, [*turns[:number], (question, f"<think>\n\n</think>\n\n{answer}")], number)

    def _row(self, i, turns, first):
        tokens = self.tokenizer.special_tokens_map
        system = self.given["_system"][i] or DEFAULT.get(self.template, "")
        parts = list(WRITTEN[self.template](system, turns, tokens.get("bos_token", ""), tokens.get("eos_token", "")))
        edges = np.cumsum([0, *map(len, parts)])
        read = self.tokenizer("".join(parts), add_special_tokens=False, return_offsets_mapping=True)
        ids = read["input_ids"]
        if self.options.get("train_on_prompt"):
            return ids, ids
        spans = [(edges[2 + 3 * k], edges[3 + 3 * k]) for k in range(first, len(turns))]
        inside = [any(a <= end - 1 < b for a, b in spans) for _, end in read["offset_mapping"]]
        return ids, [token if trained else -100 for token, trained in zip(ids, inside, strict=True)]


def cut(row, limit):
    """A row after its last whole answer that fits; None when nothing is left to learn."""
    ids, labels = row
    ends = [n for n in range(1, len(ids) + 1) if labels[n - 1] != -100 and (n == len(ids) or labels[n] == -100)]
    size = len(ids) if len(ids) <= limit else max((end for end in ends if end <= limit), default=limit)
    return (ids[:size], labels[:size]) if any(label != -100 for label in labels[:size]) else None


def documents_of(ids, labels, positions):
    """The (ids, labels) of the documents of a pack, without padding. Checks that they stand apart."""
    edges = [*(n for n, place in enumerate(positions) if place == 0), len(ids)]
    spans = [(a, b) for a, b in pairwise(edges) if b - a > 1]  # padding counts nowhere
    assert all(list(positions[a:b]) == list(range(b - a)) and labels[a] == -100 for a, b in spans)
    return [(list(ids[a:b]), list(labels[a:b])) for a, b in spans]


def prompt_length(row):
    return next(n for n, label in enumerate(row[1]) if label != -100)


SPACES = ("vicuna", "default")
"""Templates that differ from the peer's by nothing but the spaces of a SentencePiece vocabulary."""


def other_text(theirs, ours, case):
    """The name of the deviation between texts, which it holds to be what it says."""
    texts = [case.tokenizer.decode(ids) for ids in (theirs, ours)]
    assert texts[0] != texts[1]
    without = [re.sub(r"\s|" + re.escape(case.tokenizer.bos_token or "$"), "", text) for text in texts]
    assert without[1].removesuffix("<|endoftext|>" if case.template == "phi" else "") == without[0]
    return "spaces" if case.template in SPACES else "published"


def differs(peer, found, case):
    """The name of the deviation between the peer's (ids, labels) and ftk's."""
    if (list(peer[0]), list(peer[1])) == found:
        return None
    if list(peer[0]) != found[0]:
        return other_text(peer[0], found[0], case)
    changed = [(ours, n) for n, (theirs, ours) in enumerate(zip(peer[1], found[1], strict=True)) if theirs != ours]
    assert all(ours == -100 and n and found[1][n - 1] != -100 for ours, n in changed)
    return "newline"


@pytest.fixture(scope="module")
def golden():
    return [json.loads(line) for line in GOLDEN.read_text().splitlines()]


@pytest.fixture
def cases(golden, shared_tokenizer):
    """``cases(kind)``: each with its tokenizer."""
    loaded = {}

    def of(kind):
        for case in golden:
            if case["kind"] == kind:
                name, special = case["tokenizer"], case["special"]
                tokenizer = loaded[name] = loaded.get(name) or shared_tokenizer(name)
                before = {key: getattr(tokenizer, key) for key in special}
                for key, token in special.items():
                    setattr(tokenizer, key, token)
                yield Case(case, tokenizer)
                for key, token in before.items():
                    setattr(tokenizer, key, token)

    return of


@pytest.fixture
def made(make_example_run):
    """``made(build, case, examples)``: the rows that ftk makes, as lists."""
    templates = Registry.discover().specs("template")

    def make(build, case, examples, **more):
        if case.template not in templates:
            pytest.skip(f"the template {case.template} is not installed")
        run = make_example_run(examples, specs=(templates[case.template],), template=case.template,
                               tokenizer=case.tokenizer, **{**case.options, **more})  # fmt: skip
        return [
            {key: value.tolist() if hasattr(value, "tolist") else value for key, value in row.items()}
            for row in build(run, "train")
        ]

    return make


def check(kind, found):
    assert dict(found) == {name: nums[kind] for name, (nums, _) in DEVIATIONS.items() if kind in nums}


def test_conversations(cases, made):
    found = Counter()
    for case in cases("sft_tokenized"):
        answers = [case.given["_response"][i][0]["content"] for i in range(len(case))]
        examples = [
            {"messages": [*case.messages(i), {"role": "assistant", "content": answer}]}
            for i, answer in enumerate(answers)
        ]
        expected = []
        for i, answer in enumerate(answers):
            whole = list(case.rows(i, answer))
            fitted = [cut(row, case.limit) for row in whole]
            expected += filter(None, fitted)
            peer = (case.peer["input_ids"][i], case.peer["labels"][i])
            if None in fitted:
                found["dropped"] += 1
            elif fitted != whole:
                found["turns"] += 1
            elif len(whole) > 1:
                found["rewritten"] += 1
            elif name := differs(peer, whole[0], case):
                found[name] += 1
        rows = made(build_chat, case, examples) if expected else []
        assert [(row["input_ids"], row["labels"]) for row in rows] == expected
    check("sft_tokenized", found)


def test_packed_conversations(cases, made):
    """Each pack has the same rows as the peer's, where these are the same; and what is in it stands apart."""
    found = Counter()
    for case in cases("sft_packed"):
        answers = [case.given["_response"][i][0]["content"] for i in range(len(case))]
        examples = [
            {"messages": [*case.messages(i), {"role": "assistant", "content": answer}]}
            for i, answer in enumerate(answers)
        ]
        whole = [cut(row, case.limit) for i, answer in enumerate(answers) for row in case.rows(i, answer)]
        packed = made(build_chat, case, examples)
        documents = [documents_of(row["input_ids"], row["labels"], row["position_ids"]) for row in packed]
        assert all(len(row["input_ids"]) <= case.limit for row in packed)
        assert sorted(one for some in documents for one in some) == sorted(whole)
        theirs = [
            documents_of(*(case.peer[key][n] for key in ("input_ids", "labels", "position_ids")))
            for n in range(len(case.peer["input_ids"]))
        ]
        same = sorted(row for pack in theirs for row, _ in pack) == sorted(row for row, _ in whole)
        if same:  # then each pack is the same, too, but for the order in it
            assert sorted(sorted(row for row, _ in pack) for pack in theirs) == sorted(
                sorted(row for row, _ in pack) for pack in documents
            )
            found["order"] += sum(
                [row for row, _ in pack] not in [[row for row, _ in some] for some in documents] for pack in theirs
            )
        else:
            other = "spaces" if case.template in SPACES else "published"
            found["rewritten" if case.template == "qwen3" else other] += len(theirs)
    check("sft_packed", found)


def test_pairs(cases, made):
    found = Counter()
    for case in cases("dpo_tokenized"):
        examples, expected = [], []
        for i in range(len(case)):
            chosen, rejected = case.given["_response"][i]
            examples.append({"messages": case.messages(i), "chosen": [chosen], "rejected": [rejected]})
            whole = [next(case.rows(i, one["content"])) for one in (chosen, rejected)]
            fitted = [cut(row, case.limit) for row in whole]
            if None in fitted:
                found["dropped"] += 1
                continue
            expected.append(fitted)
            if fitted != whole:
                found["turns"] += 1
                continue
            for name, row in zip(("chosen", "rejected"), whole, strict=True):
                peer = (case.peer[f"{name}_input_ids"][i], case.peer[f"{name}_labels"][i])
                found[differs(peer, row, case)] += 1
        rows = made(build_pairs, case, examples) if expected else []
        assert [
            [(row[f"{name}_input_ids"], row[f"{name}_labels"]) for name in ("chosen", "rejected")] for row in rows
        ] == expected
    found.pop(None)
    check("dpo_tokenized", found)


def test_feedback_and_the_mismatched_answers_beside_it(cases, made):
    found = Counter()
    for case in cases("kto_tokenized"):
        answers = [next(one["content"] for one in both if one["content"]) for both in case.given["_response"]]
        liked = [bool(both[0]["content"]) for both in case.given["_response"]]
        examples = [
            {"messages": [*case.messages(i), {"role": "assistant", "content": answer}], "desirable": liked[i]}
            for i, answer in enumerate(answers)
        ]
        whole = [next(case.rows(i, answer)) for i, answer in enumerate(answers)]
        rows = made(build_feedback, case, examples)
        assert [row["desirable"] for row in rows] == liked == case.peer["kto_tags"]
        for i, row in enumerate(rows):
            first, theirs = prompt_length(whole[i]), prompt_length(whole[i - 1])
            kl = (whole[i][0][:first] + whole[i - 1][0][theirs:], [-100] * first + whole[i - 1][1][theirs:])
            for prefix, expected in (("", whole[i]), ("kl_", kl)):
                assert (row[f"{prefix}input_ids"], row[f"{prefix}labels"]) == expected
                peer = (case.peer[f"{prefix}input_ids"][i], case.peer[f"{prefix}labels"][i])
                found[differs(peer, expected, case)] += 1
    found.pop(None)
    check("kto_tokenized", found)


def test_prompts(cases, made):
    found = Counter()
    for case in cases("ppo_tokenized"):
        answers = [case.given["_response"][i][0]["content"] for i in range(len(case))]
        examples = [
            {"messages": [*case.messages(i), {"role": "assistant", "content": answer}]}
            for i, answer in enumerate(answers)
        ]
        rows = made(build_prompts, case, examples)
        for i, row in enumerate(rows):
            ids, labels = next(case.rows(i, answers[i]))
            assert row["input_ids"] == ids[: prompt_length((ids, labels))]
            assert row["labels"] == [label for label in labels if label != -100]
            theirs = case.peer["labels"][i]
            if (
                row["input_ids"] + row["labels"]
                != (case.peer["input_ids"][i] + theirs)[: prompt_length((ids, labels)) + len(row["labels"])]
            ):
                found["spaces" if case.template in SPACES else "published"] += 1
            elif theirs != row["labels"]:
                found["newline"] += 1
    check("ppo_tokenized", found)


def test_documents(cases, made):
    found = Counter()
    for case in cases("pt_tokenized"):
        texts = [turns[0]["content"] for turns in case.given["_prompt"]]
        eos = case.tokenizer.eos_token
        documents = [case.tokenizer(text + eos, add_special_tokens=False).input_ids for text in texts]
        stream = [token for document in documents for token in document]
        blocks = [stream[n : n + case.limit] for n in range(0, len(stream), case.limit)]
        expected = blocks if case.options["packing"] else [document[: case.limit] for document in documents]
        rows = made(build_text, case, [{"text": text} for text in texts])
        assert [row["input_ids"] for row in rows] == expected == [row["labels"] for row in rows]
        peer = case.peer["input_ids"]
        assert len(peer) == (len(stream) // case.limit if case.options["packing"] else len(texts))
        found["rest"] += len(expected) - len(peer)
        own = [case.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        for ours, theirs, alone in zip(expected, peer, own, strict=False):
            if theirs[0] != ours[0]:
                assert case.tokenizer.decode(theirs[:1]) in ("<s>", case.tokenizer.bos_token)
                theirs = theirs if case.options["packing"] else theirs[1:]
                found["begin"] += 1
            if theirs[1:] != ours[1 : len(theirs)]:
                assert theirs[len(alone)] != case.tokenizer.eos_token_id == ours[len(alone)]
                assert theirs[len(alone) + 1 :] == ours[len(alone) + 1 :]
                found["end"] += 1
    check("pt_tokenized", +found)


def test_packs_are_no_more_than_the_peers(golden):
    """Which rows share a pack is free; how many packs it takes is not."""
    compared = 0
    for case in golden:
        if case["kind"] == "greedy_knapsack":
            lengths, capacity = case["input"]["lengths"], case["input"]["capacity"]
            made = packs(lengths, capacity)
            assert len(made) <= len(case["expected"])
            assert all(sum(lengths[row] for row in pack) <= capacity for pack in made)
            assert sorted(row for pack in made for row in pack) == list(range(len(lengths)))
            compared += 1
    assert compared == 17


def test_documents_in_one_row_are_those_of_a_padding_free_batch(golden):
    """Position ids restart and the first token of a later document is not trained; in ftk neither is the very first."""
    (case,) = (case for case in golden if case["kind"] == "v1_padding_free")
    samples = [np.array(sample[: case["input"]["cutoff_len"]]) for sample in case["input"]["samples"]]
    row = together([TokenRow(ids, ids.copy()) for ids in samples])
    (ids,), (positions,), (labels,) = (case["expected"][key] for key in ("input_ids", "position_ids", "labels"))
    assert row["input_ids"].tolist() == ids
    assert row["position_ids"].tolist() == positions
    assert row["labels"].tolist() == [-100, *labels[1:]]


def test_lengths_of_a_flash_attention_batch_follow_from_the_positions(golden):
    for case in golden:
        if case["kind"] == "unpad_data":
            lengths = np.concatenate([np.bincount(row)[1:] for row in map(np.array, case["input"])])
            row = together([TokenRow(np.arange(num), np.arange(num)) for num in lengths])
            edges = [*np.flatnonzero(row["position_ids"] == 0).tolist(), len(row["input_ids"])]
            assert edges == case["expected"]["cu_seqlens"]


# Batches, and the list of what is compared


def test_masks_that_transformers_builds_from_positions_are_those_of_a_block_mask(golden):
    """Eager attention of a Llama: 0 attends, what is far below does not; padding sees itself and nobody sees it."""
    import torch
    from ftk_training.collator import Collator
    from transformers import LlamaConfig
    from transformers.masking_utils import create_causal_mask

    (case,) = (case for case in golden if case["kind"] == "attention_mask_4d")
    rows = []
    for documents in case["input"]:
        lengths = np.bincount(documents)[1:]
        rows.append(together([TokenRow(np.arange(num), np.arange(num)) for num in lengths]))
    batch = Collator()(rows)
    config = LlamaConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1, attn_implementation="eager")
    shape = (*batch["input_ids"].shape, 8)
    mask = create_causal_mask(
        config, torch.zeros(shape), None, past_key_values=None, position_ids=batch["position_ids"]
    )
    for number, (documents, expected) in enumerate(zip(case["input"], case["expected"], strict=True)):
        for query, document in enumerate(documents):
            if document:
                attended = ["0" if value == 0 else "x" for value in mask[number, 0, query].tolist()]
                assert attended == expected[query]


def test_lengths_of_documents_are_those_of_a_batch(golden):
    from ftk_training.collator import Collator
    from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

    for case in golden:
        if case["kind"] == "seqlens_in_batch":
            rows = [
                together([TokenRow(np.arange(num), np.arange(num)) for num in np.bincount(documents)[1:]])
                for documents in case["input"]
            ]
            (edges, _), _ = prepare_fa_kwargs_from_position_ids(Collator(flat=True)(rows)["position_ids"])
            assert edges.diff().tolist() == case["expected"]


def test_a_padded_batch_is_the_peers(golden):
    from ftk_training.collator import Collator

    (case,) = (case for case in golden if case["kind"] == "collator_base")
    rows = [{key: np.array(row[key]) for key in ("input_ids", "labels")} for row in case["input"]]
    batch = Collator(pad_id=99, multiple=case["params"]["pad_to_multiple_of"])(rows)
    for key, expected in case["expected"].items():
        assert batch[key].tolist() == [[99 if token == "PAD" else token for token in row] for row in expected]


def test_a_batch_without_padding_is_the_peers_but_for_how_many_rows_it_takes(golden):
    """The peer fills a batch up to a number of tokens; here its rows are counted, and packing fills."""
    from ftk_training.collator import Collator

    (case,) = (case for case in golden if case["kind"] == "v1_dynamic_padding_free")
    lengths = case["input"]["lengths"][: case["expected"]["micro_batch_sizes"][0]]
    batch = Collator(flat=True)([{"input_ids": np.arange(num), "labels": np.arange(num)} for num in lengths])
    assert list(batch["input_ids"].shape) == case["expected"]["shape"]
    assert batch["position_ids"].tolist() == [case["expected"]["position_ids"]]


COMPARED = {
    "sft_tokenized", "sft_packed", "dpo_tokenized", "kto_tokenized", "ppo_tokenized", "pt_tokenized", "greedy_knapsack",
    "v1_padding_free", "v1_dynamic_padding_free", "unpad_data", "seqlens_in_batch", "attention_mask_4d",
    "collator_base",
}  # fmt: skip
"""Kinds of golden cases that are compared here."""
ELSEWHERE = {
    "converter": "the tests of the converters", "converter_demo_row": "the tests of the converters",
    "tool_formatter": "the tests of the template families", "function_formatter": "the tests of the template families",
    "tool_extractor": "the tests of the template families",
}  # fmt: skip
NO_ROWS = {
    "infer_seqlen": "How the peer shares cutoff_len between a question and its answer: here whole turns are kept.",
    "v1_dynamic_batching": "How many rows make a batch of so many tokens: here batches count rows.",
    "v1_converter": "The peer's second data format, which no release of it documents.",
    "v1_converter_error": "Its errors; here too many and too few placeholders are told, too, in other words.",
    "mm_expansion": "Media: the placeholders of each family, in the tests of its media plugin.",
    "mm_video_file": "Media: frames of a video, in the tests of the media plugins.",
    "collator_qwen2vl_text_only_batch_gets_fake_image": "Media: here only several processes need a blank.",
    "collator_packing_mrope": "Media: positions in three dimensions, in the tests of the media plugins.",
    "jinja_export": "Templates: compared with the published ones instead.",
    "parse_template_from_chat_template": "Templates: the automatic one needs no parsing.",
    "stop_token_ids": "Templates: the stop words of each, in the tests of the families.",
    "ollama_modelfile": "Export.",
    "eval_template": "Evaluation.",
}
"""Kinds of golden cases that are not about rows, or about rows that ftk makes otherwise, and why."""


def test_every_kind_of_golden_case_is_compared_or_stands_with_its_reason(golden):
    assert {case["kind"] for case in golden} == COMPARED | set(ELSEWHERE) | set(NO_ROWS)
