"""Plans over a made-up registry: what is chosen, what is refused, and what each error says."""

from dataclasses import replace

import ftk
import pytest
from ftk.config import Setting
from ftk.errors import ConfigError, FtkError, PluginError, Problems
from ftk.options import fields_of
from ftk.plan import Conditions, make_plan
from ftk.registry import Registry

WORKS = {"model_name_or_path": "m", "dataset": "rows", "output_dir": "out"}


def settings(**values):
    return {key: Setting(value, f"run.yaml:{line}") for line, (key, value) in enumerate(values.items(), start=1)}


def plan_of(registry, **values):
    return make_plan(settings(**{**WORKS, **values}), registry, config="run.yaml")


def error_of(registry, **values):
    with pytest.raises(FtkError) as caught:
        plan_of(registry, **values)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _working_directory(data):
    """Every plan here is made where data/dataset_info.json is."""


def test_defaults_choose_one_of_each_kind(registry):
    plan = plan_of(registry)
    names = {kind: [spec.name for spec in specs] for kind, specs in plan.chosen.items() if specs}
    assert names == {
        "trainer": ["learn"], "model_loader": ["disk"], "adapter": ["small"], "template": ["plain"], "source": ["file"],
        "converter": ["pairs"],
    }  # fmt: skip
    assert plan.value("rank") == 8
    assert plan.value("learning_rate") == 5e-5


def test_values_are_converted_and_know_their_origin(registry):
    plan = plan_of(registry, learning_rate="2e-5", targets="q, v")
    assert plan.value("learning_rate") == 2e-5
    assert plan.value("targets") == ("q", "v")
    assert plan.given["learning_rate"].where == "run.yaml:4"


def test_selectors_choose_by_name_scheme_and_switch(registry):
    plan = plan_of(
        registry,
        model_name_or_path="cloud://m",
        finetuning_type="small",
        template="fancy",
        use_noise=True,
        report_to="diary",
    )
    chosen = [plan.one(kind).name for kind in ("model_loader", "adapter", "template", "optimizer", "tracker")]
    assert chosen == ["cloud", "small", "fancy", "noisy", "diary"]
    assert plan_of(registry, report_to="none").one("tracker") is None
    assert plan_of(registry, quantization_bit=4).one("quantizer").name == "squeeze"


def test_of_a_kind_without_selector_the_defaults_take_part_in_every_run(registry):
    """What turns something off has an effect, too: the values of the feature are never reported as being without."""

    @ftk.options
    class HoldOptions:
        hold_still: bool = ftk.option(True, help="Hold still.")

    always = ftk.ModelPatch("hold", target="made.up:hold", options=HoldOptions, default=True)
    switched = ftk.ModelPatch("shake", target="made.up:shake", switch="use_noise")
    record = replace(registry.records[0], specs=(*registry.records[0].specs, always, switched))
    plan = plan_of(Registry((record,), registry.manager), use_noise=True, hold_still=False)
    assert [spec.name for spec in plan.chosen["model_patch"]] == ["hold", "shake"]
    assert plan.value("hold_still") is False
    assert plan.notes == ()
    assert plan_of(Registry((record,), registry.manager), stage="read").chosen.get("model_patch") is None


def test_a_switch_chooses_where_the_selector_names_none(registry):
    quick = ftk.ModelLoader("quick", target="made.up:quick", switch="use_noise")
    record = replace(registry.records[0], specs=(*registry.records[0].specs, quick))
    registry = Registry((record,), registry.manager)
    assert plan_of(registry, use_noise=True).one("model_loader").name == "quick"
    named = plan_of(registry, use_noise=False).one("model_loader").name
    assert named != "quick"
    assert plan_of(registry, use_noise=True, model_loader=named).one("model_loader").name == named


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rnak": 3}, "run.yaml:4: rnak: unknown option. Did you mean rank (ftk-made-up 1.2)?"),
        ({"zzz": 3}, "run.yaml:4: zzz: unknown option. ftk options lists all"),
        ({"use_galore": True}, "run.yaml:4: use_galore: belongs to ftk-galore, which"),
        ({"compute_dtype": "x"}, "run.yaml:4: compute_dtype: is not set by hand: it follows bf16"),
        ({"stage": "lern"}, "run.yaml:4: stage: lern is not installed. Did you mean learn? Installed: learn, read"),
        ({"stage": "dpo"}, "run.yaml:4: stage: dpo belongs to ftk-dpo, which"),
        ({"template": "acme"}, "It may come with a plugin such as ftk-template-acme: pip install ftk-template-acme"),
        ({"learning_rate": "1e-4x"}, "run.yaml:4: learning_rate: '1e-4x': input should be a valid number (float, ftk"),
        ({"learning_rate": -1}, "run.yaml:4: learning_rate: -1: input should be greater than or equal to 0"),
        ({"rank": 0}, "run.yaml:4: rank: 0: input should be greater than or equal to 1"),
        ({"rank": 13}, "run.yaml: rank: 13 brings bad luck"),
        ({"token": ["x"]}, "token: (hidden): input should be a valid string"),
        ({"model_name_or_path": None}, "run.yaml:1: model_name_or_path: not set"),
        ({"output_dir": None}, "run.yaml:3: output_dir: not set. Say where the results go, for instance saves/run"),
        ({"dataset": None}, "run.yaml:2: dataset: not set"),
        ({"model_name_or_path": "moon://m"}, "no installed model loader answers for moon://"),
        ({"finetuning_type": "heavy"}, "heavy needs no_such_package_anywhere"),
        ({"use_noise": True, "use_more": True}, "use_noise and use_more exclude each other: a run takes one optimizer"),
        ({"finetuning_type": "other", "use_noise": True}, "adapter:other and optimizer:noisy exclude each other. Take"),
        ({"packing": True, "streaming": True, "learning_rate": 0.1}, "run.yaml:4: packing and streaming exclude each"),
        ({"quantization_bit": 3}, "run.yaml:4: quantization_bit: 3: squeeze can do 4, 8"),
        ({"quantization_bit": 4, "quantization_method": "open"}, "quantization_bit: 4: open only opens models whose"),
        ({"quantization_bit": 4, "targets": "q,v"}, "run.yaml: quantizer:squeeze and targets>1 exclude each other"),
        ({"streaming": True}, "run.yaml:4: streaming needs learning_rate=0.1"),
        ({"dataset": "nope"}, "run.yaml:2: dataset: nope is neither a name in data/dataset_info.json nor a file"),
        ({"dataset": "row"}, "nor a file. Did you mean rows?"),
        ({"dataset": "s3://x"}, "no installed source opens s3://"),
        ({"dataset": {"file_name": "rows.json", "kolumns": {}}}, "kolumns: unknown field of a data set. Did you"),
        ({"dataset": {"file_name": "x", "columns": {"promt": "a"}}}, "columns.promt: the pairs converter has none"),
        ({"dataset": {"file_name": "x", "formatting": "parquets"}}, "parquets is not installed"),
        ({"dataset": {"hf_hub_url": "x/y"}}, "hf_hub_url: belongs to ftk-hub, which"),
        ({"dataset": {"size": 1}}, "no installed source takes it. An entry needs one of: file_name"),
    ],
)  # fmt: skip
def test_an_error_says_where_what_who_and_what_next(registry, values, said):
    message = error_of(registry, **values)
    assert said in message
    assert "\n" not in message


def test_a_condition_may_be_a_kind_or_a_number_that_is_exceeded(registry):
    conditions = Conditions(registry, plan_of(registry, quantization_bit=4).chosen, {"many": ("a", "b"), "n": 1}.get)
    for met in ("quantizer", "quantizer:squeeze", "many>1", "n>0", "n=1"):
        assert conditions.met(met), met
    for unmet in ("optimizer", "quantizer:open", "many>2", "n>1", "nothing>0", "n=2"):
        assert not conditions.met(unmet), unmet


def test_what_the_model_chooses_is_held_against_the_rest(registry):
    """A model whose files are quantised already is met when the plan has long been made."""
    opener = registry.find("quantizer", "open")
    assert plan_of(registry).taking(opener).one("quantizer") is opener
    with pytest.raises(ConfigError, match=r"^run\.yaml: quantizer:open and adapter:other exclude each other"):
        plan_of(registry, finetuning_type="other", rank=2).taking(opener)


def test_all_errors_come_at_once(registry):
    with pytest.raises(Problems) as caught:
        plan_of(registry, rnak=1, stage="lern", learning_rate="x")
    assert len(caught.value.errors) == 3
    assert str(caught.value).count("\n") == 2


def test_a_key_that_is_gone_is_translated_and_told(registry):
    plan = plan_of(registry, warm_ratio=0.1, log_folder="x")
    assert plan.value("warm_steps") == 0.1
    assert plan.notes == (
        "run.yaml:4: warm_ratio: taken as warm_steps: 0.1",
        "run.yaml:5: log_folder: set LOG_DIR instead",
    )
    assert "left out, warm_steps is set" in plan_of(registry, warm_ratio=0.1, warm_steps=7).notes[0]


def test_a_key_without_effect_is_reported(registry):
    assert plan_of(registry, other_size=3).notes == (
        "run.yaml:4: other_size: has no effect in this run (it belongs to ftk-made-up 1.2)",
    )
    assert plan_of(registry, other_size=1).notes == ()
    assert "template: has no effect" in plan_of(registry, stage="read", template="fancy").notes[0]


def test_a_trainer_uses_a_kind_when_its_condition_holds(registry):
    sometimes = ftk.Trainer("read", target="made.up:train", uses=("model_loader",), uses_when={"adapter": "rank>8"})
    (record,) = registry.records
    specs = tuple(sometimes if spec.id == "trainer:read" else spec for spec in record.specs)
    registry = Registry((replace(record, specs=specs),), registry.manager)
    assert plan_of(registry, stage="read", rank=9).one("adapter").name == "small"
    assert plan_of(registry, stage="read", rank=8).one("adapter") is None


def test_a_key_with_nothing_behind_it_leaves_the_default(registry):
    assert plan_of(registry, learning_rate=None, resume_from_checkpoint=None).value("learning_rate") == 5e-5


def test_secrets_are_masked_where_settings_are_shown(registry):
    from ftk.rundir import resolved_options

    plan = plan_of(registry, token="hunter2")
    assert plan.value("token") == "hunter2"
    assert plan.shown("token") == "***"
    assert "hunter2" not in str(resolved_options(plan))


def test_a_command_reads_what_it_needs_and_ignores_the_rest(registry):
    command = registry.find("command", "talk")
    plan = make_plan(settings(**WORKS, learning_rate=1, other_size=5), registry, config="run.yaml", command=command)
    assert plan.one("trainer") is None
    assert plan.one("adapter").name == "small"
    assert plan.notes == ()
    with pytest.raises(ConfigError, match="rnak"):
        make_plan(settings(**WORKS, rnak=1), registry, command=command)


def test_data_sets_may_be_names_paths_and_inline_entries(registry, data):
    (data / "more.json").write_text("[]")
    plan = plan_of(
        registry, dataset=["rows", "more.json", {"file_name": "rows.json", "name": "mine"}], eval_dataset="rows"
    )
    assert [one.entry.name for one in plan.datasets["train"]] == ["rows", "more", "mine"]
    assert [one.entry.name for one in plan.datasets["eval"]] == ["rows"]
    assert plan_of(registry, dataset="rows, more.json").datasets["train"][1].entry.fields == {"file_name": "more.json"}


def test_a_relative_path_is_found_beside_the_config(registry, data, monkeypatch):
    (data / "more.json").write_text("[]")
    (data / "elsewhere").mkdir()
    monkeypatch.chdir(data / "elsewhere")
    values = settings(**{**WORKS, "dataset": "more.json"})
    plan = make_plan(values, registry, config=str(data / "run.yaml"))
    assert plan.datasets["train"][0].entry.fields == {"file_name": str(data / "more.json")}


@pytest.mark.parametrize(
    ("text", "said"), [('{"rows": ', "dataset_info.json:1:10: does not parse"), ("[]", "expected a mapping of names")]
)
def test_a_damaged_dataset_info_is_said(registry, data, text, said):
    (data / "data" / "dataset_info.json").write_text(text)
    assert said in error_of(registry)


def test_no_spec_of_a_required_kind_is_said(registry):
    from dataclasses import replace

    from ftk.registry import Registry

    bare = Registry((replace(registry.records[0], specs=()),), registry.manager)
    with pytest.raises(
        FtkError, match=r"stage: not set, .* trainer belongs to ftk-sft, which .* pip install ftk-sft\. Installed: none"
    ):
        make_plan(settings(**WORKS), bare, config="run.yaml")


def without(registry, *gone):
    """The registry without some specs."""
    from dataclasses import replace

    from ftk.registry import Registry

    left = tuple(spec for spec in registry.records[0].specs if spec.id not in gone)
    return Registry((replace(registry.records[0], specs=left),), registry.manager)


def test_a_switch_without_a_default_behind_it_is_no_switch_without_effect(registry):
    """Four bits that nobody makes: the run would train a model of four times the size without a word."""
    with pytest.raises(
        FtkError, match="quantization_method: not set, and the default quantizer belongs to ftk-bnb, which"
    ):
        plan_of(without(registry, "quantizer:squeeze"), quantization_bit=4)


def test_a_model_alone_is_opened_without_the_plugin_for_adapters_and_one_with_adapters_is_not(registry):
    bare = without(registry, "adapter:small")
    talk = bare.find("command", "talk")
    assert make_plan(settings(model_name_or_path="m"), bare, command=talk).one("adapter") is None
    with pytest.raises(FtkError, match="finetuning_type: not set, and the default adapter belongs to ftk-lora"):
        make_plan(settings(model_name_or_path="m", adapter_name_or_path="a"), bare, command=talk)
    with pytest.raises(FtkError, match="finetuning_type: not set, and the default adapter belongs to ftk-lora"):
        plan_of(bare)


def test_files_that_nobody_loads_are_refused_before_they_are_fetched(registry):
    line = "run.yaml.*: cloud only brings files, and the default model_loader belongs to ftk-hf, which is not .* ftk-hf"
    with pytest.raises(FtkError, match=line):
        plan_of(without(registry, "model_loader:disk"), model_name_or_path="cloud://a/b")


def test_two_defaults_of_a_kind_ask_for_a_choice(registry):
    import ftk
    from ftk.plugins import PluginRecord
    from ftk.registry import Registry

    second = PluginRecord("acme", "acme", "3", "acme", specs=(ftk.Adapter("acme", target="a:b", default=True),))
    both = Registry((*registry.records, second), registry.manager)
    with pytest.raises(PluginError, match=r"several plugins want to be the default adapter: acme \(acme 3\), small"):
        make_plan(settings(**WORKS), both, config="run.yaml")
    assert make_plan(settings(**WORKS, finetuning_type="acme"), both).one("adapter").name == "acme"


def test_every_kernel_option_has_help():
    from ftk.kernel_options import KERNEL_OPTIONS

    assert all(option.help for cls in KERNEL_OPTIONS for option in fields_of(cls).values())
