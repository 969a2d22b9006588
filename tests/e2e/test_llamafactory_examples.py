"""The YAMLs that LLaMA-Factory ships, and every option name that its documentation lists.

The reference is the peer itself: its examples and its option inventory lie beside the repository in ``../shared``;
without them these tests are skipped.
"""

import re
from pathlib import Path

import pytest
from ftk.config import Setting, merge, parse_overrides, read_yaml
from ftk.errors import FtkError, PluginError
from ftk.plan import make_plan
from ftk.registry import Registry

SHARED = Path(__file__).parents[3] / "shared"
EXAMPLES = SHARED / "golden" / "llamafactory_examples"
NOT_TRAINING = {"accelerate", "deepspeed", "v1", "inference", "merge_lora"}
OTHER_COMMANDS = {"tokens_cfg.yaml"}
DATA_NOT_SHIPPED = {"llama2_full_asft.yaml", "qwen2_full_asft.yaml"}
"""Examples whose data sets LLaMA-Factory's dataset_info.json does not have either."""

TO_COME = (
    r"belongs to [\w -]+, which (does not exist yet|is not installed)|needs .*pip install \"ftk-[\w-]+\[backend\]\""
)
"""A plugin that is to come or to be installed, or its back end, by what is to be typed."""

pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="../shared/golden is not beside the repository")


def examples():
    return sorted(
        path
        for path in EXAMPLES.rglob("*.yaml")
        if not NOT_TRAINING & set(path.relative_to(EXAMPLES).parts)
        and path.name not in OTHER_COMMANDS
        and "model_name_or_path" in path.read_text()
    )


@pytest.fixture(scope="module")
def registry():
    return Registry.discover()


@pytest.mark.parametrize("path", examples(), ids=lambda path: "/".join(path.relative_to(EXAMPLES).parts))
def test_an_example_ends_in_a_plan_or_names_what_is_to_be_installed(path, registry, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    settings = merge(read_yaml(path), parse_overrides(["--dataset_dir", str(SHARED / "data" / "llamafactory")]))
    if path.name in DATA_NOT_SHIPPED:
        settings = merge(settings, parse_overrides(["--dataset", "identity"]))
    try:
        plan = make_plan(settings, registry, config=str(path))
    except FtkError as error:
        for line in str(error).splitlines():
            assert "unknown option" not in line
            assert re.search(TO_COME, line), line
    else:
        assert plan.one("trainer") is not None
        assert plan.datasets["train"] or plan.datasets["eval"]


@pytest.mark.parametrize("path", sorted((EXAMPLES / "inference").glob("*.yaml")), ids=lambda path: path.name)
@pytest.mark.parametrize("engine", ["huggingface", "vllm", "sglang"])
def test_an_example_of_inference_is_a_plan_for_each_engine_or_says_what_to_install(path, engine, registry):
    settings = merge(read_yaml(path), parse_overrides(["--infer_backend", engine]))
    try:
        plan = make_plan(settings, registry, config=str(path), command=registry.find("command", "chat"))
    except FtkError as error:
        said = str(error).replace('"', "")
        wanted = {"vllm": r"needs vllm\. pip install ftk-vllm\[backend\]", "sglang": "pip install ftk-sglang"}
        assert re.search(wanted.get(engine, r"belongs to [\w -]+, which does not exist yet"), said), said
    else:
        assert plan.one("engine").name == engine


def listed_names():
    text = (SHARED / "reference" / "llamafactory.md").read_text(encoding="utf-8")
    section = text.split("```text\n## BaseModelArguments", 1)[1].split("```", 1)[0]
    return sorted(set(re.findall(r"^(\w+): ", section, re.MULTILINE)))


@pytest.mark.parametrize("name", listed_names() if EXAMPLES.exists() else [])
def test_a_documented_option_is_never_unknown(name, registry):
    if name in registry.options or name in registry.replaced:
        return
    message = str(registry.unknown_option(name))
    assert "unknown option" not in message
    assert "belongs to" in message or "is not set by hand" in message


def test_the_documented_yaml_runs_as_it_is(registry, tmp_path, monkeypatch):
    """The YAML of LLaMA-Factory's own documentation, whose learning rate YAML 1.1 reads as text."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "support.json").write_text('[{"instruction": "a", "output": "b"}]')
    (tmp_path / "data" / "dataset_info.json").write_text('{"my_customer_support_data": {"file_name": "support.json"}}')
    (tmp_path / "train_settings.yaml").write_text(
        "model_name_or_path: meta-llama/Llama-2-7b-hf\ndataset: my_customer_support_data\ncutoff_len: 1024\n"
        "learning_rate: 2e-5\nper_device_train_batch_size: 4\nnum_train_epochs: 3\noutput_dir: ./output_support_model\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = read_yaml("train_settings.yaml")
    plan = make_plan(settings, registry, config="train_settings.yaml")
    overridden = merge(settings, parse_overrides(["--learning_rate", "1e-5"]))
    changed = make_plan(overridden, registry, config="train_settings.yaml")
    assert plan.value("learning_rate") == 2e-5
    assert changed.value("learning_rate") == 1e-5
    assert {key: value for key, value in plan.values.items() if changed.values[key] != value} == {"learning_rate": 2e-5}
    assert plan.given["learning_rate"] == Setting(2e-5, "train_settings.yaml:4")


def test_a_missing_plugin_is_an_error_not_a_crash(registry):
    with pytest.raises(PluginError, match="belongs to"):
        registry.find("tracker", "comet_ml")
