"""PiSSA against Meng et al. 2024, eq. 2 to 4 (s B A is W's best approximation of rank r, the rest completes it) with
torch's exact decomposition, and against peft's own PiSSA and its conversion to a plain LoRA."""

import json

import pytest
import torch
from ftk import ModelError
from ftk.errors import ConfigError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

IDS_BT = torch.tensor([[5, 6, 7, 8, 9, 10]])
LLAMA = {"model_name_or_path": "ftk://random/llama", "finetuning_type": "lora", "pissa_init": True}


def make(tmp_path, **settings):
    return Run(plan_in(tmp_path, **{**LLAMA, **settings}))


def plain(run):
    return run._loader.load_model(run)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS_BT, use_cache=False).logits


def layers_of(model, tops=""):
    return {name: one for name, one in model.named_modules() if hasattr(one, "lora_A") and "default" in one.lora_A}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("pissa")


@pytest.mark.parametrize("settings", [{}, {"pissa_iter": -1}, {"use_rslora": True}, {"use_dora": True}])
def test_a_new_adapter_changes_nothing(tmp_path, settings):
    run = make(tmp_path, **settings)
    torch.testing.assert_close(logits(run.model(trainable=True)), logits(plain(run)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("iterations", [-1, 16])
def test_the_term_is_the_best_approximation_and_the_rest_completes_it(tmp_path, iterations):
    """The quick decomposition misses the best one by little: singular values of random matrices lie close together."""
    run = make(tmp_path, lora_rank=4, lora_alpha=12, pissa_iter=iterations)
    before = dict(plain(run).named_modules())
    found = layers_of(run.model(trainable=True))
    assert len(found) == 14
    for name, layer in found.items():
        w = before[name.removeprefix("base_model.model.")].weight.detach()
        product = 3 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        u, s, vh = torch.linalg.svd(w)
        if iterations < 0:
            torch.testing.assert_close(product.detach(), u[:, :4] * s[:4] @ vh[:4], rtol=1e-3, atol=1e-5)
        assert torch.linalg.matrix_rank(product, rtol=1e-4) == 4
        assert (w - product).norm() <= 1.01 * s[4:].norm()
        torch.testing.assert_close((layer.base_layer.weight + product).detach(), w, rtol=1e-4, atol=1e-6)


def test_the_exact_decomposition_is_pefts(tmp_path):
    ours = layers_of(make(tmp_path, pissa_iter=-1, lora_target="q_proj").model(trainable=True))
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj"], init_lora_weights="pissa")
    theirs = layers_of(get_peft_model(plain(make(tmp_path)), config))
    for name, layer in ours.items():
        torch.testing.assert_close(layer.base_layer.weight, theirs[name].base_layer.weight, rtol=1e-4, atol=1e-6)


def test_the_random_state_is_left_as_it_was(tmp_path):
    """So that what the seed gives afterwards does not depend on the number of matrices."""
    states = []
    for target in ("q_proj", "q_proj,v_proj"):
        run = make(tmp_path, lora_target=target)
        model = Run(plan_in(tmp_path, **{**LLAMA, "pissa_init": False, "lora_target": target})).model(trainable=True)
        torch.manual_seed(3)
        run.plan.one("lora_variant").load()(model, run, True)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_the_seed_alone_decides_the_terms(tmp_path):
    """So that a run that goes on finds its own, whatever has drawn random numbers before."""
    found = []
    for state, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(state)
        model = make(tmp_path, seed=seed, pissa_iter=0).model(trainable=True)
        found.append(layers_of(model)["base_model.model.model.layers.0.mlp.up_proj"].lora_A["default"].weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def rows(folder):
    return {name: one.shape for name, one in load_file(folder / "adapter_model.safetensors").items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"pissa_convert": True},
        {"pissa_convert": False},
        {"pissa_convert": True, "use_rslora": True, "additional_target": "norm"},
        {"pissa_convert": True, "use_dora": True},
        {"pissa_convert": True, "model_name_or_path": "ftk://random/llava"},
        {"pissa_convert": True, "model_name_or_path": "ftk://random/gpt2"},
        {"pissa_convert": False, "model_name_or_path": "ftk://random/qwen3_moe", "lora_target": "q_proj,o_proj"},
    ],
    ids=lambda settings: "-".join(f"{value}" for value in settings.values()).replace("ftk://random/", ""),
)
def test_a_run_is_saved_loaded_and_resumed_exactly(prove, settings):
    done = prove(**{**LLAMA, **settings})
    converted = json.loads((done.folder / "checkpoint-3" / "adapter_config.json").read_text())["r"]
    result = json.loads((done.folder / "adapter_config.json").read_text())["r"]
    assert (converted, result) == (16, 16 if settings["pissa_convert"] else 8)
    if result == 16:
        assert rows(done.folder) == rows(done.folder / "checkpoint-3")


def test_the_result_is_pefts_own_conversion(prove):
    """peft converts by loading the first factors, which it has saved, into the trained model."""
    done = prove(**LLAMA, pissa_convert=True)
    ours = load_file(done.folder / "adapter_model.safetensors")
    fresh = make(done.folder.parent).model(trainable=True)
    fresh.peft_config["default"].init_lora_weights = "pissa"
    fresh.save_pretrained(done.folder / "initial")
    done.model.peft_config["default"].init_lora_weights = "pissa"
    done.model.save_pretrained(
        done.folder / "theirs", path_initial_model_for_weight_conversion=str(done.folder / "initial")
    )
    theirs = load_file(done.folder / "theirs" / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_peft_alone_reads_both_forms(prove, tmp_path):
    done = prove(**LLAMA, pissa_convert=False)
    alone = AutoPeftModelForCausalLM.from_pretrained(done.folder)
    torch.testing.assert_close(logits(alone), done.logits, rtol=1e-3, atol=1e-4)
    checkpoint = PeftModel.from_pretrained(plain(make(tmp_path)), done.folder / "checkpoint-3")
    torch.testing.assert_close(logits(checkpoint), done.logits, rtol=1e-3, atol=1e-4)


def test_factors_of_another_machine_are_taken_from_the_checkpoint(prove, tmp_path):
    done = prove(**LLAMA, pissa_convert=True)
    run = make(tmp_path, pissa_iter=0, seed=7)
    model = run.model(trainable=True)
    from ftk_training.learning import of

    of(run).form.restore(model, done.folder / "checkpoint-3")
    torch.testing.assert_close(logits(model), done.logits, rtol=1e-3, atol=1e-4)


def test_a_result_goes_on_as_a_plain_lora(prove, tmp_path):
    done = prove(**LLAMA, pissa_convert=True)
    model = make(tmp_path, adapter_name_or_path=str(done.folder), pissa_init=False).model(trainable=True)
    assert model.peft_config["default"].r == 16
    torch.testing.assert_close(logits(model), done.logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_name_or_path": "ftk://random/mixtral"}, "pissa_init: True: experts that share a parameter cannot"),
        ({"lora_target": "q_proj,embed_tokens"}, "pissa_init: True: embeddings cannot have it"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, settings, said):
    with pytest.raises(ModelError) as error:
        make(tmp_path, **settings).model(trainable=True)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_its_keys_have_no_effect_without_it(tmp_path):
    notes = plan_in(tmp_path, **{**LLAMA, "pissa_init": False, "pissa_convert": True}).notes
    assert any("pissa_convert: has no effect in this run" in note for note in notes)


@pytest.mark.needs("ftk-bnb", "bitsandbytes")
def test_quantised_models_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="lora_variant:pissa and quantizer exclude each other"):
        make(tmp_path, quantization_bit=4)


def test_open_run_finds_the_changed_model(prove):
    done = prove(**LLAMA, pissa_convert=False)
    assert open_run("chat", str(done.folder)).value("model_name_or_path") == str(done.folder / "changed_base")


@pytest.mark.parametrize("method", ["full", "oft"])
def test_it_is_refused_without_lora(tmp_path, method):
    with pytest.raises(ConfigError, match="pissa_init: needs adapter:lora"):
        plan_in(tmp_path, finetuning_type=method, **{"pissa_init": True})
