"""Conversations as prompts with their answers. Reference: the data sets' files as they were written here, and the rows
that a run trains."""

import json

import pytest
from ftk import ConfigError, Message, Prompt
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_data import renderer
from ftk_data.questions import answer_text, questions


def written(folder, name, count):
    path = folder / f"{name}.jsonl"
    rows = [{"instruction": f"{name} {n}", "output": f"answer {n}"} for n in range(count)]
    rows[1]["history"] = [["early", "said"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_own_data_sets_are_read_in_their_order_up_to_max_samples(tmp_path):
    names = ",".join(written(tmp_path, name, 5) for name in ("one", "two"))
    run = Run(plan_in(tmp_path, dataset=names, eval_dataset=names, template="chatml", max_samples=3))
    found = questions(run, "eval")
    assert [question.prompt.messages[-1].text for question in found] == [
        f"{name} {n}" for name in ("one", "two") for n in range(3)
    ]
    assert [message.text for message in found[1].prompt.messages] == ["early", "said", "one 1"]
    assert (found[4].answer, found[4].dataset) == (Message("assistant", "answer 1"), "two")
    assert found[4].where.endswith("two.jsonl:2")


@pytest.mark.parametrize("more", [{}, {"mix_strategy": "interleave_over"}, {"cutoff_len": 40, "cutoff_policy": "drop"}])
def test_what_is_set_aside_is_what_no_row_trains(tmp_path, more):
    names = ",".join(written(tmp_path, name, 6) for name in ("one", "two"))
    run = Run(plan_in(tmp_path, dataset=names, template="chatml", val_size=4, **more))
    asked = {question.prompt.messages[-1].text for question in questions(run, "eval")}
    evaluated = "".join(run.tokenizer.decode(row["input_ids"]) for row in run.rows("eval"))
    trained = "".join(run.tokenizer.decode(row["input_ids"]) for row in run.rows("train"))
    assert len(asked) == 4
    assert all(f"{text}<|im_end|>" in evaluated and f"{text}<|im_end|>" not in trained for text in asked)


def test_nothing_is_asked_without_an_evaluation(tmp_path):
    assert questions(Run(plan_in(tmp_path, template="chatml")), "eval") == []


@pytest.mark.parametrize("key", ["streaming", "tokenized_path"])
def test_what_is_set_aside_out_of_sight_is_refused(tmp_path, key):
    value = True if key == "streaming" else str(tmp_path / "tokens")
    run = Run(plan_in(tmp_path, template="chatml", val_size=2, **{key: value}))
    with pytest.raises(ConfigError, match=f"{key}: .*Give an eval_dataset"):
        questions(run, "eval")


def test_the_answer_is_what_the_model_would_have_to_write(tmp_path):
    run = Run(plan_in(tmp_path, template="qwen3"))
    asked = questions(run, "train")[0]._replace(
        prompt=Prompt((Message("user", "2+2?"),)), answer=Message("assistant", "4", reasoning="easy")
    )
    assert answer_text(renderer(run), asked) == "<think>\neasy\n</think>\n\n4"
    assert answer_text(renderer(run), asked, ["<think>"]) == "\neasy\n</think>\n\n4"
    assert answer_text(renderer(run), asked._replace(answer=None)) == ""
