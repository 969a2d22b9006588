"""The media processor of a run over a made-up registry: found by the model, after the plan was made.

The reference is the contract of ``ftk.specs.Kind.by_model``, written out case by case.
"""

import json
import sys
import types

import ftk
import pluggy
import pytest
from ftk import events, rundir
from ftk.config import Setting
from ftk.errors import ConfigError, PluginError
from ftk.plan import make_plan
from ftk.plugins import PluginRecord
from ftk.registry import Registry
from ftk.run import Run, execute
from ftk.showing import show_plan
from ftk.types import Tokens

MODULE = "made_up_eyes"


@ftk.options
class EyeOptions:
    eye_pixels: int = ftk.option(64, help="Most pixels.", minimum=1)
    eye_grey: bool = ftk.option(False, help="No colours.", excludes=("ear_rate=8000",))


@ftk.options
class EarOptions:
    ear_rate: int = ftk.option(16000, help="Samples per second.")


class Eyes:
    placeholders = {"image": "<eye>"}  # noqa: RUF012 (never changed)

    def __init__(self, run):
        self.pixels = run.options(EyeOptions).eye_pixels


EYES = ftk.MediaProcessor("eyes", target=f"{MODULE}:Eyes", options=EyeOptions, model_types=("seer", "onlooker"))
EARS = ftk.MediaProcessor("ears", target=f"{MODULE}:Eyes", options=EarOptions, model_types=("listener", "onlooker"))
HEAVY = ftk.MediaProcessor("heavy", target=f"{MODULE}:Eyes", model_types=("whale",), requires=("no_such_package",))
BASE = (
    ftk.ModelLoader("disk", target=f"{MODULE}:disk", default=True),
    ftk.Adapter("all", target=f"{MODULE}:train", default=True, saves="model"),
    ftk.DatasetSource("file", target=f"{MODULE}:train", field="file_name"),
    ftk.DatasetConverter("pairs", target=f"{MODULE}:train", default=True),
    ftk.ChatTemplate("plain", default=True),
    ftk.Trainer("learn", target=f"{MODULE}:train", default=True),
    ftk.Trainer("blind", target=f"{MODULE}:train", uses=("model_loader",)),
    ftk.Command("talk", target=f"{MODULE}:train", uses=("model_loader",)),
)


def registry_of(**plugins):
    """A registry of plugins, name -> specs, each with a module of its own."""
    made = {"base": BASE, "eyes": (EYES,), "ears": (EARS,), "heavy": (HEAVY,), **plugins}
    manager = pluggy.PluginManager("ftk")
    manager.add_hookspecs(events)
    return Registry(
        tuple(PluginRecord(name, f"ftk-{name}", "1.0", f"made_up_{name}", specs=specs) for name, specs in made.items()),
        manager,
    )


@pytest.fixture
def model(monkeypatch):
    """What the loader finds: set ``model_type``."""
    found = types.SimpleNamespace(model_type="seer")
    module = types.ModuleType(MODULE)
    module.Eyes = Eyes
    module.disk = types.SimpleNamespace(load_tokenizer=lambda run: Tokens(None, model_type=found.model_type))
    module.train = lambda run: {"seen": float(run.media.pixels if run.media else 0)}
    monkeypatch.setitem(sys.modules, MODULE, module)
    return found


def plan_of(tmp_path, registry=None, command=None, **values):
    values = {"model_name_or_path": "m", "dataset": [{"file_name": "x"}], "output_dir": str(tmp_path / "out"), **values}
    settings = {key: Setting(value, f"run.yaml: {key}") for key, value in values.items()}
    registry = registry or registry_of()
    return make_plan(settings, registry, config="run.yaml", command=command and registry.find("command", command))


def test_the_model_chooses_and_the_options_reach_its_processor(model, tmp_path):
    run = Run(plan_of(tmp_path, eye_pixels="9"))
    assert run.media.pixels == 9
    assert run.media is run.media, "made once"
    assert run.plan.one("media") is EYES


def test_a_model_that_takes_no_media_has_none(model, tmp_path):
    model.model_type = "writer"
    assert Run(plan_of(tmp_path)).media is None
    model.model_type = ""
    assert Run(plan_of(tmp_path)).media is None


def test_a_run_that_does_not_use_the_kind_has_none_and_says_so_of_its_keys(model, tmp_path):
    plan = plan_of(tmp_path, stage="blind", dataset=None, eye_pixels=9)
    assert Run(plan).media is None
    assert [note for note in plan.notes if "eye_pixels: has no effect in this run" in note]
    assert Run(plan_of(tmp_path, command="talk")).media is None


def test_options_of_every_installed_processor_can_be_set_and_are_checked(model, tmp_path):
    plan = plan_of(tmp_path, eye_pixels=9, ear_rate=8000)
    assert (plan.value("eye_pixels"), plan.value("ear_rate")) == (9, 8000)
    assert not plan.notes
    with pytest.raises(ConfigError, match="eye_pixels: 0: input should be greater than or equal to 1"):
        plan_of(tmp_path, eye_pixels=0)
    with pytest.raises(ConfigError, match="eye_grey and ear_rate=8000 exclude each other"):
        plan_of(tmp_path, eye_grey=True, ear_rate=8000)


def test_until_then_none_is_chosen_and_none_is_listed(model, tmp_path, capsys):
    plan = plan_of(tmp_path, eye_pixels=9)
    assert plan.chosen["media"] == ()
    show_plan(plan)
    said = capsys.readouterr().out
    assert "eye_pixels" in said
    assert " media " not in said


def test_a_processor_that_is_not_used_takes_no_part(model, tmp_path):
    run = Run(plan_of(tmp_path))
    before = {record.name for record in run.plan.records}
    assert before == {"base", "kernel"}
    assert run.media
    assert {record.name for record in run.plan.records} == before | {"eyes"}


def test_only_the_processor_in_use_hears_of_events(model, tmp_path):
    registry, heard = registry_of(), []
    for record in registry.records:
        observer = types.SimpleNamespace()
        observer.ftk_step_finished = ftk.hookimpl(lambda step, name=record.name: heard.append((name, step)))
        registry.manager.register(observer, record.id)
    run = Run(plan_of(tmp_path, registry))
    run.log(1, {})
    assert run.media
    run.log(2, {})
    heard.sort()
    assert heard == [("base", 1), ("base", 2), ("eyes", 2)]


def test_two_processors_for_one_model_are_an_error_that_names_both(model, tmp_path):
    model.model_type = "onlooker"
    with pytest.raises(PluginError) as error:
        Run(plan_of(tmp_path)).media  # noqa: B018 (a property that loads)
    assert str(error.value) == (
        "several media processors serve onlooker models: eyes (ftk-eyes 1.0), ears (ftk-ears 1.0). "
        "Uninstall all but one"
    )


def test_two_plugins_with_one_name_are_a_conflict_only_for_a_model_that_needs_it(model, tmp_path):
    registry = registry_of(other=(ftk.MediaProcessor("eyes", target=f"{MODULE}:Eyes", model_types=("seer",)),))
    with pytest.raises(PluginError, match="eyes"):
        Run(plan_of(tmp_path, registry)).media  # noqa: B018 (a property that loads)
    model.model_type = "writer"
    assert Run(plan_of(tmp_path, registry)).media is None


def test_a_processor_whose_package_is_missing_says_what_to_install(model, tmp_path):
    model.model_type = "whale"
    with pytest.raises(PluginError, match="heavy needs no_such_package"):
        Run(plan_of(tmp_path)).media  # noqa: B018 (a property that loads)


def test_the_record_says_which_processor_was_used(model, tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "library_versions", lambda distributions: {})
    metrics = execute(plan_of(tmp_path, eye_pixels=25))
    assert metrics == {"seen": 25}
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["chosen"]["media"] == ["eyes"]
    assert record["provides"]["media:eyes"] == "ftk-eyes 1.0"
    assert record["plugins"]["ftk-eyes"] == "1.0"
    assert "ftk-ears" not in record["plugins"]
    assert record["options"]["eye_pixels"] == 25


def test_of_several_processes_the_first_one_keeps_the_record(model, tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "library_versions", lambda distributions: {})
    monkeypatch.setenv("RANK", "1")
    assert execute(plan_of(tmp_path, eye_pixels=25)) == {"seen": 25}
    assert not (tmp_path / "out" / "run.json").exists()
