"""What patches and adapters agree on, against examples written out here; the optimizer groups are torch's own."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ftk import ConfigError, ModelError
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_training.learning import free, is_freed, keep, of, set_form, set_rates, settle, split_rates, why_kept


@pytest.fixture
def run(tmp_path):
    return Run(plan_in(tmp_path))


def test_the_longer_name_wins(run):
    keep(run, ["model.tower", "model.tower.last.bias"], "freeze_tower: true")
    free(run, ["model.tower.last", "model.head"], "tune_last: true")
    kept = {"model.tower", "model.tower.first.weight", "model.tower.last.bias"}
    freed = {"model.tower.last", "model.tower.last.weight", "model.head.weight"}
    others = {"model", "model.towers", "model.layers.0"}
    for name in kept | freed | others:
        assert why_kept(run, name) == ("freeze_tower: true" if name in kept else "")
        assert is_freed(run, name) == (name in freed)


def test_of_two_who_say_the_same_name_keeping_wins(run):
    keep(run, ["model.tower"], "freeze_tower: true")
    free(run, ["model.tower"], "tune_tower: true")
    assert why_kept(run, "model.tower.weight")
    assert not is_freed(run, "model.tower.weight")


def test_each_run_has_its_own(run, tmp_path):
    keep(run, ["model"], "a patch")
    assert not why_kept(Run(run.plan), "model")


def network():
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False))


def test_groups_are_split_by_rate_and_the_first_rule_that_answers_counts(run):
    model = network()
    set_rates(run, lambda name, parameter: 0.5 if name == "1.weight" else None)
    set_rates(run, lambda name, parameter: 0.25 if parameter.ndim == 1 or name == "1.weight" else None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    split_rates(run, model, optimizer)
    found = [
        (group["lr"], group["momentum"], [one.shape for one in group["params"]]) for group in optimizer.param_groups
    ]
    assert found == [(0.1, 0.9, [(2, 2)]), (0.25, 0.9, [(2,)]), (0.5, 0.9, [(2, 2)])]


def test_a_step_after_the_split_is_that_of_the_rates(run):
    model = network()
    before = [one.detach().clone() for one in model.parameters()]
    set_rates(run, lambda name, parameter: 0.5 if name == "1.weight" else None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    split_rates(run, model, optimizer)
    for one in model.parameters():
        one.grad = torch.ones_like(one)
    optimizer.step()
    moved = [float((old - new).detach().mean()) for old, new in zip(before, model.parameters(), strict=True)]
    assert moved == pytest.approx([0.1, 0.1, 0.5])


def test_two_forms_are_refused(run):
    form = SimpleNamespace(rewrite=None, restore=None)
    set_form(run, form)
    assert of(run).form is form
    with pytest.raises(ConfigError, match="both save an adapter in a form of their own"):
        set_form(run, SimpleNamespace())


def test_nothing_that_learns_is_an_error(run):
    with pytest.raises(ModelError, match=r"here: no weight is left that learns"):
        settle(network().requires_grad_(False), run, "here")


def test_a_form_writes_every_save_and_reads_every_resume(tmp_path, monkeypatch):
    """The trainer hands it checkpoints and the result, and the checkpoint that a run goes on from."""
    calls = []

    class Noting:
        def rewrite(self, model, folder, *, checkpoint):
            calls.append(("rewrite", checkpoint, (Path(folder) / "adapter_config.json").exists()))

        def restore(self, model, folder):
            calls.append(("restore", Path(folder).name))

    def go(name, **settings):
        run = Run(plan_in(tmp_path, output_dir=str(tmp_path / name), save_steps=1, save_strategy="steps", **settings))
        set_form(run, Noting())
        run.output_dir.mkdir()
        run.plan.one("trainer").load()(run)

    go("one")
    assert calls == [("rewrite", True, True), ("rewrite", True, True), ("rewrite", False, True)]
    calls.clear()
    go("two", resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-1"))
    assert calls[0] == ("restore", "checkpoint-1")
