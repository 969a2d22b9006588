"""Full fine-tuning against the model that was loaded: the same values, all of them learning."""

import pytest
import torch
from ftk.errors import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_training.learning import keep


def make(tmp_path, **settings):
    return Run(plan_in(tmp_path, **{"finetuning_type": "full", **settings}))


def test_the_plugin_keeps_the_contract():
    assert check_plugin("full")


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [({}, torch.float32), ({"bf16": True}, torch.float32), ({"pure_bf16": True}, torch.bfloat16)],
)
def test_every_parameter_learns_in_float32_unless_pure_bf16(tmp_path, settings, dtype):
    run = make(tmp_path, model_name_or_path="ftk://random/llama?dtype=bfloat16", **settings)
    loaded = run._loader.load_model(run).state_dict()
    model = run.model(trainable=True)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded[name].to(dtype)), name


def test_tied_weights_stay_tied(tmp_path):
    model = make(tmp_path, model_name_or_path="ftk://random/llama?dtype=bfloat16&tie_word_embeddings=true").model(
        trainable=True
    )
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_a_model_that_answers_is_left_as_it_was_loaded(tmp_path):
    model = make(tmp_path, model_name_or_path="ftk://random/llama?dtype=bfloat16").model(trainable=False)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_what_a_patch_keeps_does_not_learn(tmp_path):
    run = make(tmp_path, model_name_or_path="ftk://random/llama")
    keep(run, ["model.embed_tokens", "model.layers.0"], "a patch")
    names = {name for name, one in run.model(trainable=True).named_parameters() if one.requires_grad}
    assert {".".join(name.split(".")[:3]) for name in names} == {
        "model.layers.1",
        "model.norm.weight",
        "lm_head.weight",
    }


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "llava"])
def test_a_run_is_saved_loaded_and_resumed_exactly(prove, family):
    prove(model_name_or_path=f"ftk://random/{family}", finetuning_type="full", learning_rate=1e-3)


def test_an_adapter_is_refused(tmp_path):
    """Quantised models are, too: the quantisers' own tests show it."""
    with pytest.raises(ConfigError, match="adapter:full and adapter_name_or_path exclude each other"):
        make(tmp_path, adapter_name_or_path="some/adapter")
