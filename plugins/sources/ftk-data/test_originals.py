"""Prompts and what they were made of. Reference: the data sets' files as they were written here."""

import json

import pytest
from ftk import ConfigError
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_data.originals import Originals
from ftk_data.rows import build_prompts


def prompts(folder, split="train", **settings):
    names = []
    for name, count in (("one", 5), ("two", 7)):
        path = folder / f"{name}.jsonl"
        rows = [{"instruction": f"{name} {n}", "output": f"answer {n}", "solution": n} for n in range(count)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        names.append(str(path))
    settings = {"dataset": ",".join(names), "template": "chatml", **settings}
    run = Run(plan_in(folder, **settings))
    rows = build_prompts(run, split)
    return run, rows


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_samples": 3}, {"mix_strategy": "interleave_over", "interleave_probs": "0.5,0.5"}, {"val_size": 4}],
    ids=lambda one: next(iter(one), "concat"),
)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_each_prompt_finds_the_row_and_the_example_that_it_was_made_of(tmp_path, settings, split):
    run, rows = prompts(tmp_path, split, **settings)
    originals = Originals(run, split, rows)
    assert len(originals) == len(rows)
    for index in range(len(rows)):
        found = originals[index]
        text = run.tokenizer.decode(rows[index]["input_ids"])
        assert found.columns["instruction"] in text
        assert found.example.messages[0].text == found.columns["instruction"]
        assert f"answer {found.columns['solution']}" in run.tokenizer.decode(rows[index]["labels"])
        assert found.columns["instruction"].split()[0] in found.where


def test_rows_from_a_folder_of_tokens_do_not_tell_where_they_came_from(tmp_path):
    run, rows = prompts(tmp_path, tokenized_path=str(tmp_path / "tokens"))
    with pytest.raises(ConfigError, match=r"tokenized_path: .*Take it out"):
        Originals(run, "train", rows)
