"""Every hook does what its docstring says: a plugin that implements it is found, or called at the right time.

The tests are made from the lists of hooks themselves, so a new hook cannot be without one.
"""

import json

import pytest
from ftk import events, hookspecs
from ftk.events import EVENTS
from ftk.registry import Registry
from ftk.specs import KINDS
from ftk.testing import run_in

DECLARING = """
import ftk

@ftk.hookimpl
def {hook}():
    yield ftk.{spec}("zz-made", target="nowhere:at_all", summary="Made up")
"""
WATCHING = """
import json
from pathlib import Path

import ftk

@ftk.options
class Options:
    {name}: str | None = ftk.option(None, help="File that gets a line for each call.")

def note(run, *line):
    with Path(run.options(Options).{name}).open("a") as file:
        file.write(json.dumps(line) + "\\n")

def train(run):
    run.log(1, {{"loss": 2.0}})
    run.emit("ftk_checkpoint_saved", step=1, path=run.output_dir / "checkpoint-1")
    if {fails}:
        raise ftk.DataError("no such luck")
    return {{"loss": 2.0}}

@ftk.hookimpl
def ftk_trainers():
    yield ftk.Trainer("{name}", target="ftk_{name}:train", uses=("model_patch",), summary="Logs one step")

@ftk.hookimpl
def ftk_model_patches():
    yield ftk.ModelPatch("{name}", switch="{name}", options=Options, summary="Watches")

@ftk.hookimpl
def ftk_run_started(run):
    note(run, "ftk_run_started", run.output_dir.is_dir())

@ftk.hookimpl
def ftk_step_finished(run, step, metrics):
    note(run, "ftk_step_finished", step, dict(metrics))

@ftk.hookimpl
def ftk_checkpoint_saved(step, run, path):
    note(run, "ftk_checkpoint_saved", step, path.name)

@ftk.hookimpl
def ftk_run_finished(run, error):
    note(run, "ftk_run_finished", error and str(error))
    raise RuntimeError("an observer must not end a run")
"""
CALLS = [
    ["ftk_run_started", True],
    ["ftk_step_finished", 1, {"loss": 2.0}],
    ["ftk_checkpoint_saved", 1, "checkpoint-1"],
    ["ftk_run_finished", None],
]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_there_is_no_other_hook():
    hooks = {name for module in (hookspecs, events) for name in vars(module) if name.startswith("ftk_")}
    assert hooks == {kind.hook for kind in KINDS.values()} | set(EVENTS) | {"ftk_kinds"}
    assert sorted(name for name, *_ in CALLS) == sorted(EVENTS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_declaration_hook_yields_can_be_asked_for(fake_plugin, ftk_cli, kind):
    fake_plugin("zz-made", DECLARING.format(hook=KINDS[kind].hook, spec=KINDS[kind].spec.__name__))
    assert Registry.discover().find(kind, "zz-made").target == "nowhere:at_all"
    listed = {one["name"]: one for one in json.loads(ftk_cli("plugins", "list", "--json").stdout)}
    assert listed["zz-made"]["provides"] == [f"{kind}:zz-made"]
    assert (listed["zz-made"]["distribution"], listed["zz-made"]["version"]) == ("ftk-zz-made", "0.1")


def test_event_hooks_are_called_in_order_for_the_plugins_of_the_plan(fake_plugin, tmp_path, caplog):
    for name in ("zz_active", "zz_idle"):
        fake_plugin(name, WATCHING.format(name=name, fails=False))
    finished = run_in(tmp_path, stage="zz_active", zz_active=str(tmp_path / "calls"))
    assert lines_of(tmp_path / "calls") == CALLS
    assert finished.metrics == {"loss": 2.0}
    assert "ftk_run_finished failed: RuntimeError: an observer must not end a run" in caplog.text


def test_the_last_event_says_what_ended_the_run(fake_plugin, tmp_path):
    fake_plugin("zz_active", WATCHING.format(name="zz_active", fails=True))
    with pytest.raises(Exception, match="no such luck"):
        run_in(tmp_path, stage="zz_active", zz_active=str(tmp_path / "calls"))
    assert lines_of(tmp_path / "calls")[-1] == ["ftk_run_finished", "no such luck"]
