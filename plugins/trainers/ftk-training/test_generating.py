"""Answers in evaluations and predictions. Reference: the same run without them; an engine and a metric that are written
here and say what was asked of them; for the real engine ``generate`` itself."""

import json
import threading

import pytest
from ftk import CheckpointError, ConfigError, Reply
from ftk.kernel_options import SamplingOptions
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_data.questions import questions
from ftk_training.predicting import Answering, Processes, Throughput, compared
from ftk_training.prediction import Prediction
from ftk_training.predictions_file import PredictionsFile

PLUGIN = """
import random
import ftk
from ftk_training import Metric

class Parrot:
    asked, closed = [], 0

    def __init__(self, model):
        self.model = model

    def generate(self, prompts, sampling):
        import numpy, torch
        torch.rand(3), random.random(), numpy.random.rand()
        Parrot.asked.append((len(prompts), sampling.seed, getattr(self.model, "training", None)))
        return [ftk.Reply(prompt.messages[-1].text, "stop", 1, 1) for prompt in prompts]

    def close(self):
        Parrot.closed += 1

SCORES = []

def compare(predictions):
    return {"score": SCORES.pop(0) if SCORES else 0.0, "number": len(predictions)}

@ftk.hookimpl
def ftk_inference_engines():
    yield ftk.Engine("parrot", target="ftk_parrot:build", summary="Repeats")
    yield ftk.Engine("apart", target="ftk_parrot:build", loads_model=False, summary="Has weights of its own")

def build(run, model):
    return Parrot(model)

@ftk.hookimpl
def ftk_metrics():
    yield Metric("score", target="ftk_parrot:compare", summary="As written")
"""
ANSWERS = {"predict_with_generate": True, "metrics": "score", "infer_backend": "parrot", "template": "chatml"}


@pytest.fixture
def parrot(fake_plugin):
    import importlib

    fake_plugin("parrot", PLUGIN)
    module = importlib.import_module("ftk_parrot")
    return module


def rows_in(folder, name, count):
    path = folder / f"{name}.json"
    path.write_text(json.dumps([{"instruction": f"{name} {n}", "output": f"word {n}"} for n in range(count)]))
    return str(path)


def log_of(finished):
    return [json.loads(line) for line in (finished.folder / "trainer_log.jsonl").read_text().splitlines()]


def lines_of(finished):
    text = (finished.folder / "generated_predictions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_answering_leaves_the_training_as_it_was(ftk_run, tmp_path, parrot):
    settings = {"template": "chatml", "max_steps": 4, "lora_dropout": 0.3, "eval_dataset": rows_in(tmp_path, "e", 5)}
    settings |= {"eval_strategy": "steps", "eval_steps": 1}
    plain = log_of(ftk_run(**settings, output_dir=str(tmp_path / "plain")))
    asked = log_of(ftk_run(**{**settings, **ANSWERS, "generate_samples": 3}))
    for before, after in zip(plain, asked, strict=True):
        for name in ("loss", "grad_norm", "eval_loss"):
            assert before.get(name) == after.get(name)
    numbers = [line["eval_number"] for line in asked if "eval_loss" in line]
    assert numbers == [3, 3, 3, 3]
    assert all(not training for *_, training in parrot.Parrot.asked)
    assert parrot.Parrot.closed == 4


def test_the_best_checkpoint_is_the_one_whose_answers_are_best_and_no_better_ones_stop_it(ftk_run, tmp_path, parrot):
    parrot.SCORES[:] = [1.0, 3.0, 2.0, 2.5, 9.0]
    finished = ftk_run(
        **ANSWERS, max_steps=5, eval_dataset=rows_in(tmp_path, "e", 2), eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model="score",
        early_stopping_steps=2,
    )  # fmt: skip
    state = json.loads((finished.folder / "trainer_state.json").read_text())
    assert (state["best_global_step"], state["best_metric"], state["global_step"]) == (2, 3.0, 4)


def test_each_data_set_has_its_own_numbers(ftk_run, tmp_path, parrot):
    names = f"{rows_in(tmp_path, 'one', 2)},{rows_in(tmp_path, 'two', 3)}"
    metrics = ftk_run(**ANSWERS, eval_dataset=names, eval_on_each_dataset=True, do_eval=True, do_train=False).metrics
    found = {name: value for name, value in metrics.items() if name.endswith("_number")}
    assert sorted(found.values()) == [2, 3]


def test_a_run_may_predict_only(ftk_run, tmp_path, parrot):
    """As LLaMA-Factory's example has it: do_predict, an eval_dataset, no do_train and no dataset."""
    finished = ftk_run(
        **ANSWERS, dataset=None, eval_dataset=rows_in(tmp_path, "e", 5), do_predict=True, per_device_eval_batch_size=2
    )
    assert lines_of(finished)[3] == {
        "prompt": "<|im_start|>user\ne 3<|im_end|>\n<|im_start|>assistant\n", "predict": "e 3", "label": "word 3",
    }  # fmt: skip
    assert finished.metrics == {"predict_score": 0.0, "predict_number": 5}
    assert json.loads((finished.folder / "predict_results.json").read_text()) == finished.metrics
    assert finished.record["result"] == "none"
    assert [(size, seed) for size, seed, _ in parrot.Parrot.asked] == [(2, 42), (2, 44), (1, 46)]
    assert "generated_predictions.jsonl" in finished.record["files"]


def test_a_run_may_train_evaluate_and_then_predict(ftk_run, tmp_path, parrot, capsys):
    parrot.SCORES[:] = [7.5]
    finished = ftk_run(**ANSWERS, do_train=True, do_eval=True, do_predict=True, eval_dataset=rows_in(tmp_path, "e", 3))
    assert "eval_score 7.5000" in capsys.readouterr().out
    assert len(lines_of(finished)) == finished.metrics["predict_number"] == 3
    assert finished.metrics["train_steps"] == 2


def test_an_engine_with_weights_of_its_own_predicts_and_no_model_is_loaded_here(ftk_run, tmp_path, parrot, monkeypatch):
    monkeypatch.setattr(Run, "model", lambda *_, **__: pytest.fail("nobody needs it"))
    data = {"dataset": None, "eval_dataset": rows_in(tmp_path, "e", 3)}
    assert ftk_run(**{**ANSWERS, "infer_backend": "apart"}, **data, do_predict=True).metrics["predict_number"] == 3


def test_a_run_that_ended_while_it_predicted_goes_on_there(ftk_run, tmp_path, parrot, monkeypatch):
    settings = {**ANSWERS, "do_train": True, "do_predict": True, "eval_dataset": rows_in(tmp_path, "e", 6)}
    settings |= {"per_device_eval_batch_size": 2, "save_strategy": "steps", "save_steps": 1}
    generate = parrot.Parrot.generate

    def tired(self, prompts, sampling):
        if sampling.seed == 46:
            raise RuntimeError("killed")
        return generate(self, prompts, sampling)

    monkeypatch.setattr(parrot.Parrot, "generate", tired)
    with pytest.raises(RuntimeError):
        ftk_run(**settings)
    monkeypatch.setattr(parrot.Parrot, "generate", generate)
    parrot.Parrot.asked.clear()
    finished = ftk_run(**settings)
    assert [line["predict"] for line in lines_of(finished)] == [f"e {n}" for n in range(6)]
    assert [seed for _, seed, _ in parrot.Parrot.asked] == [46]


def test_the_engine_answers_with_the_model_that_was_trained(ftk_run, tmp_path, fake_plugin):
    settings = {
        **ANSWERS, "infer_backend": "huggingface", "metrics": "none", "max_new_tokens": 6, "do_sample": False,
        "eval_dataset": rows_in(tmp_path, "e", 3), "per_device_eval_batch_size": 2, "model_name_or_path": "ftk://tiny-chat",
    }  # fmt: skip
    trained = ftk_run(**settings, do_train=True, do_predict=True, learning_rate=1e-2)
    assert len(lines_of(trained)) == 3
    alone = ftk_run(
        **settings, do_predict=True, adapter_name_or_path=[str(trained.folder)], output_dir=str(tmp_path / "alone")
    )
    assert lines_of(alone) == lines_of(trained)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"do_predict": True}, "do_predict: True: prompts are answered by generating; set predict_with_generate: true"),
        (
            {**ANSWERS, "do_predict": True, "do_train": True},
            "there are no prompts to answer. Set eval_dataset or val_size",
        ),
        ({**ANSWERS, "do_predict": True, "eval_dataset": None}, "there are no prompts to answer"),
        ({**ANSWERS, "infer_backend": "apart", "val_size": 1}, "infer_backend: apart: loads the weights from files"),
        ({"stage": "pt", "do_predict": True, "dataset": "texts"}, "this stage answers none. ftk predict does"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(ftk_run, tmp_path, parrot, settings, said):
    if settings.get("dataset"):
        (tmp_path / "texts.txt").write_text("some text\n")
        settings = {**settings, "dataset": str(tmp_path / "texts.txt")}
    with pytest.raises(ConfigError) as error:
        ftk_run(**{"do_train": True, **settings} if "do_predict" not in settings else settings)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_an_engine_takes_part_only_in_runs_that_answer(tmp_path, parrot):
    assert plan_in(tmp_path, template="chatml").one("engine") is None
    assert plan_in(tmp_path, **ANSWERS).one("engine").name == "parrot"
    assert [spec.name for spec in plan_in(tmp_path, **ANSWERS).chosen["metric"]] == ["score"]
    notes = plan_in(tmp_path, template="chatml", infer_backend="parrot", metrics="score").notes
    assert sum("has no effect in this run" in note for note in notes) == 2


def test_the_keys_of_the_peer_that_are_not_taken_are_told(tmp_path, parrot):
    plan = plan_in(tmp_path, **ANSWERS, generation_max_length=9, generation_num_beams=2, generation_config="folder")
    assert len(plan.notes) == 3
    assert plan.value("num_beams") == 2


# In pieces


class Together:
    """Some processes as threads."""

    def __init__(self, rank, world, shared, barrier):
        self.rank, self.world, self.shared, self.barrier = rank, world, shared, barrier

    def together(self, mine):
        self.shared[self.rank] = mine
        self.barrier.wait(20)
        found = [one for part in self.shared for one in part]
        self.barrier.wait(20)
        return found


class Counting:
    """Answers with its seed."""

    def __init__(self):
        self.seeds = []

    def generate(self, prompts, sampling):
        self.seeds.append(sampling.seed)
        return [Reply(f"{prompt.messages[-1].text}/{sampling.seed}", "stop", 1, 1) for prompt in prompts]

    def close(self): ...


@pytest.mark.parametrize("count", [1, 6, 7, 9])
def test_several_processes_answer_the_same_in_the_same_order(tmp_path, parrot, count):
    run = Run(plan_in(tmp_path, **ANSWERS, eval_dataset=rows_in(tmp_path, "e", count)))
    asked = questions(run, "eval")
    barrier, shared, files = threading.Barrier(3), [[], [], []], []

    def work(rank):
        file = PredictionsFile(tmp_path / "lines.jsonl", {"prompts": count})
        Answering(run, asked, 2, Together(rank, 3, shared, barrier)).into(file, Counting)
        files.append(file)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [line["predict"] for line in lines] == [f"e {n}/{42 + n // 2 * 2}" for n in range(count)]
    alone = Answering(run, asked, 2, Processes()).all(Counting())
    assert [line.predict for line in alone] == [line["predict"] for line in lines]


def file_in(folder, **facts):
    return PredictionsFile(folder / "p.jsonl", {"prompts": 10, "seed": 1, **facts})


def some(count):
    return [Prediction(f"p{n}", f"a{n}\nü", f"l{n}") for n in range(count)]


def test_a_file_goes_on_at_a_whole_batch_and_drops_half_a_line(tmp_path):
    file = file_in(tmp_path)
    assert file.open(2) == 0
    file.append(some(5))
    with file.path.open("a") as raw:
        raw.write('{"prompt": "p5", "pre')
    again = file_in(tmp_path)
    assert again.open(2) == 4
    assert again.predictions == some(4)
    again.append(some(10)[4:])
    whole = file_in(tmp_path)
    assert whole.open(4) == 10
    assert whole.predictions == some(10)


def test_answers_made_otherwise_are_refused_unless_one_begins_anew(tmp_path):
    file = file_in(tmp_path)
    file.open(1)
    file.append(some(2))
    with pytest.raises(ConfigError, match=r"p.jsonl: holds answers that were made with another seed\. Move it away"):
        file_in(tmp_path, seed=2).open(1)
    assert file_in(tmp_path, seed=2).open(1, anew=True) == 0
    file.state.unlink()
    file_in(tmp_path, seed=2).open(1)  # empty: nothing to mix with


def test_two_processes_do_not_write_into_one_file(tmp_path):
    first, second = file_in(tmp_path), file_in(tmp_path)
    first.open(1)
    second.open(1)
    first.append(some(1))
    with pytest.raises(CheckpointError, match="another process has written into it"):
        second.append(some(1))


def test_metrics_are_rounded_and_nothing_is_compared_with_nothing(tmp_path, parrot):
    run = Run(plan_in(tmp_path, **ANSWERS))
    parrot.SCORES[:] = [1 / 3]
    assert compared(run, some(2)) == {"score": 0.3333, "number": 2}
    assert compared(run, []) == {}


def test_throughput_says_how_far_and_how_quick(capsys):
    line = Throughput(10, 100)
    line.began, line.told = 0.0, 0.0
    line.add(20, 400)
    assert line.line(10.0) == "answered 30 of 100 prompts, 2.0 prompts/s, 40 tokens/s, 0:00:35 left"
    line.close()
    told = capsys.readouterr().err
    assert told.startswith("10 of 100 prompts were answered before; going on\n")
    assert told.count("answered 30 of 100") == 2


def test_sampling_is_the_runs(tmp_path, parrot):
    run = Run(plan_in(tmp_path, **ANSWERS, temperature=0.3, do_sample=True))
    assert Answering(run, [], 1, Processes()).sampling == run.options(SamplingOptions).sampling()
