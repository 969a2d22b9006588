"""Liger's kernels: a stand-in package shows what it is asked for; the real one is compared with plain losses on a GPU.

The stand-in has what version 0.8 has: a table of model types with one function each, whose arguments are its kernels.
"""

import importlib.util
import json
import sys

import pytest
import torch
from ftk import ConfigError, PluginError, plugins
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in

STAND_IN = """
def apply_liger_kernel_to_llama(rope=True, swiglu=True, fused_linear_cross_entropy=True, model=None):
    model.kernels = {"rope": rope, "swiglu": swiglu}

MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": apply_liger_kernel_to_llama, "newest": apply_liger_kernel_to_llama}
"""


def test_the_plugin_keeps_the_contract():
    assert check_plugin("liger")


def forget():
    """What is known of an installed Liger."""
    for name in [name for name in sys.modules if name.split(".")[0] == "liger_kernel"]:
        del sys.modules[name]
    plugins._is_installed.cache_clear()


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    package = tmp_path / "packages" / "liger_kernel" / "transformers"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").write_text("")
    (package / "monkey_patch.py").write_text(STAND_IN)
    forget()
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    yield
    forget()


def loaded(tmp_path, **more):
    settings = {"enable_liger_kernel": True, "use_cpu": False, "finetuning_type": "full", **more}
    run = Run(plan_in(tmp_path, **settings))
    return run, run.model(trainable=True)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("key", ["enable_liger_kernel", "use_liger_kernel"])
def test_liger_is_asked_for_its_kernels_of_the_model(tmp_path, key):
    settings = {"use_cpu": False, "finetuning_type": "full", key: True, "liger_kernel_config": {"swiglu": False}}
    model = Run(plan_in(tmp_path, **settings)).model(trainable=True)
    assert model.kernels == {"rope": True, "swiglu": False}


@pytest.mark.usefixtures("stand_in")
def test_the_loss_is_left_to_liger(tmp_path):
    _, model = loaded(tmp_path)
    assert not getattr(model, "weighs_losses", False)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"use_cpu": True}, "enable_liger_kernel: True: Liger's kernels need a GPU, and this run has none"),
        ({"model_name_or_path": "ftk://random/gpt2"}, "has no kernels for gpt2 models.* It has them for llama, newest"),
        (
            {"liger_kernel_config": {"swigly": True}},
            "no kernel swigly for this model.* Did you mean swiglu.* It has rope",
        ),
    ],
    ids=["no GPU", "unknown model", "unknown kernel"],
)
def test_what_liger_cannot_do_is_said_in_one_line_before_loading(tmp_path, more, said, monkeypatch):
    run = Run(plan_in(tmp_path, **{"enable_liger_kernel": True, "use_cpu": False, "finetuning_type": "full", **more}))
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ConfigError, match=said) as caught:
        run.model(trainable=True)
    assert "\n" not in str(caught.value)


def test_without_the_package_the_plan_says_what_to_install(tmp_path, monkeypatch):
    if importlib.util.find_spec("liger_kernel"):
        pytest.skip("liger-kernel is installed")
    with pytest.raises(PluginError, match=r'pip install "ftk-liger\[backend\]"'):
        plan_in(tmp_path, enable_liger_kernel=True)
    assert Registry.discover().specs("model_patch")["liger"].requires == ("liger_kernel",)


def test_kernels_without_liger_have_no_effect_and_the_plan_says_so(tmp_path):
    notes = plan_in(tmp_path, liger_kernel_config={"rope": True}).notes
    assert any("liger_kernel_config: has no effect" in note for note in notes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="Liger's kernels need a GPU")
def test_losses_with_the_kernels_are_those_without(tmp_path):
    pytest.importorskip("liger_kernel", reason="needs liger-kernel")
    settings = {"use_cpu": False, "max_steps": 3, "template": "chatml", "finetuning_type": "full"}
    found = []
    for on in (True, False):
        finished = run_in(tmp_path, **settings, enable_liger_kernel=on, output_dir=str(tmp_path / str(on)))
        found.append([json.loads(line)["loss"] for line in (finished.folder / "trainer_log.jsonl").open()])
    assert found[0] == pytest.approx(found[1], rel=1e-3)
