"""``ftk predict`` as a user sees it. Reference: a process that nobody disturbed, and the engine asked by itself."""

import json

import pytest
from ftk import Message, Prompt, Sampling
from ftk.opening import open_run
from ftk.testing import check_plugin, run_in

SMALL = "model_name_or_path: ftk://random/llama\ntemplate: chatml\nmax_new_tokens: 5\nper_device_eval_batch_size: 2\n"


def rows_in(folder, name, count):
    path = folder / f"{name}.jsonl"
    path.write_text(
        "".join(json.dumps({"instruction": f"{name} {n}", "output": f"word {n}"}) + "\n" for n in range(count))
    )
    return path


@pytest.fixture
def config(tmp_path):
    rows_in(tmp_path, "test", 7)
    path = tmp_path / "p.yaml"
    path.write_text(f"{SMALL}eval_dataset: test.jsonl\noutput_dir: {tmp_path / 'out'}\n")
    return path


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_plugin_keeps_the_contract():
    assert check_plugin("predict")


def test_answers_come_in_the_order_of_the_data(ftk_cli, tmp_path, config):
    result = ftk_cli("predict", config, "--do_sample", "false")
    assert result.exit_code == 0, result.output
    found = lines_of(tmp_path / "out" / "generated_predictions.jsonl")
    assert [line["label"] for line in found] == [f"word {n}" for n in range(7)]
    assert found[2]["prompt"] == "<|im_start|>user\ntest 2<|im_end|>\n<|im_start|>assistant\n"
    engine = open_run("predict", str(config)).engine()
    prompts = [Prompt((Message("user", f"test {n}"),)) for n in (2, 3)]
    wanted = engine.generate(prompts, Sampling(max_new_tokens=5, do_sample=False))
    assert [line["predict"] for line in found[2:4]] == [reply.text for reply in wanted]
    assert "answered 7 of 7 prompts" in result.stderr
    assert result.stdout == f"answered 7 prompts: {tmp_path / 'out' / 'generated_predictions.jsonl'}\n"


def test_killed_in_the_middle_it_goes_on_to_the_same_answers(ftk_cli, tmp_path, config, monkeypatch):
    ftk_cli("predict", config, "--output", tmp_path / "whole.jsonl")
    from ftk_training.predictions_file import PredictionsFile

    append, calls = PredictionsFile.append, []

    def killed(self, predictions):
        if len(calls) == 2:
            with self.path.open("a") as file:
                file.write('{"prompt": "<|im_st')
            raise KeyboardInterrupt
        calls.append(append(self, predictions))

    monkeypatch.setattr(PredictionsFile, "append", killed)
    ftk_cli("predict", config, "--output", tmp_path / "parts.jsonl")
    monkeypatch.undo()
    assert (tmp_path / "parts.jsonl").read_text().count("\n") == 4
    again = ftk_cli("predict", config, "--output", tmp_path / "parts.jsonl")
    assert "4 of 7 prompts were answered before; going on" in again.stderr
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_is_finished_is_not_made_again(ftk_cli, tmp_path, config, monkeypatch):
    assert ftk_cli("predict", config).exit_code == 0
    monkeypatch.setattr("ftk.run.Run.engine", lambda self, model=None: pytest.fail("no engine is needed"))
    assert ftk_cli("predict", config).exit_code == 0
    other = ftk_cli("predict", config, "--temperature", "0.1")
    assert (other.exit_code, "made with another temperature" in other.stderr) == (2, True)
    assert len(other.stderr.splitlines()) == 2


def test_restart_begins_anew(ftk_cli, tmp_path, config):
    ftk_cli("predict", config)
    result = ftk_cli("predict", config, "--max_new_tokens", "1", "--restart")
    assert result.exit_code == 0, result.output
    assert len(lines_of(tmp_path / "out" / "generated_predictions.jsonl")) == 7


def test_metrics_stand_beside_the_answers(ftk_cli, tmp_path, config):
    result = ftk_cli("predict", config, "--predict_with_generate", "true", "--metrics", "bleu")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "predict_results.json").read_text())
    assert sorted(found) == ["predict_bleu", "predict_bleu-4"]
    assert "prediction: bleu-4 " in result.stdout
    told = ftk_cli("predict", config, "--metrics", "bleu", "--output", tmp_path / "o.jsonl").stderr
    assert "metrics: have no effect without predict_with_generate: true" in told


def test_what_a_run_has_trained_answers_what_it_set_aside(ftk_cli, tmp_path):
    rows = rows_in(tmp_path, "mine", 6)
    run_in(tmp_path, template="chatml", dataset=str(rows), val_size=2, max_new_tokens=3, learning_rate=1e-2)
    trained = ftk_cli("predict", tmp_path / "out", "--do_sample", "false")
    assert trained.exit_code == 0, trained.output
    assert "2 prompts of the evaluation data" in trained.stderr
    before = ftk_cli("predict", tmp_path / "out", "--base", "--do_sample", "false", "--output", tmp_path / "b.jsonl")
    assert before.exit_code == 0, before.output
    assert len(lines_of(tmp_path / "b.jsonl")) == 2


def test_without_an_evaluation_the_training_data_is_answered(ftk_cli, tmp_path):
    rows_in(tmp_path, "train", 3)
    (tmp_path / "t.yaml").write_text(f"{SMALL}dataset: train.jsonl\nmax_samples: 2\n")
    said = ftk_cli("predict", tmp_path / "t.yaml", "--output", tmp_path / "o.jsonl")
    assert said.exit_code == 0, said.output
    assert "2 prompts of the training data" in said.stderr
    assert len(lines_of(tmp_path / "o.jsonl")) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["{config}", "--max_new_token", "3"], "max_new_token: unknown option. Did you mean max_new_tokens"),
        (["{config}", "--output_dir", "null"], "output_dir: not set. Say --output FILE"),
    ],
)
def test_a_mistake_is_one_line(ftk_cli, config, words, said):
    result = ftk_cli("predict", *(word.format(config=config) for word in words))
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
