"""Saved adapters of any type against plain peft (``PeftModel.from_pretrained`` on the loaded base, and its own sums);
targets against lists written out here."""

import shutil
from dataclasses import replace

import pytest
import torch
from ftk import ModelError
from ftk.errors import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_peft.saving import bare
from ftk_peft.targets import find_targets
from ftk_training.learning import free, keep
from peft import IA3Config, LoraConfig, OFTConfig, PeftModel, VeraConfig, get_peft_model

IDS_BT = torch.tensor([[5, 6, 7, 8, 9, 10]])
needs_bnb = pytest.mark.needs("ftk-bnb", "bitsandbytes")


def make(tmp_path, family="llama", **settings):
    return Run(plan_in(tmp_path, **{"model_name_or_path": f"ftk://random/{family}", **settings}))


def base_of(tmp_path, family="llama"):
    run = make(tmp_path, family)
    return run._loader.load_model(run)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS_BT, use_cache=False).logits


CONFIGS = {
    "lora": LoraConfig(r=4, target_modules=["q_proj", "down_proj"]),
    "oft": OFTConfig(oft_block_size=16, target_modules=["q_proj", "v_proj"]),
    "vera": VeraConfig(r=4, target_modules=["q_proj"]),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
}


def saved(tmp_path, kind, folder="adapter"):
    """The folder of an adapter that plain peft has made and that changes something, and its model's logits."""
    model = get_peft_model(base_of(tmp_path), CONFIGS[kind])
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(tmp_path / folder)
    return str(tmp_path / folder), logits(model)


def test_the_plugin_keeps_the_contract():
    assert check_plugin("peft")


@pytest.mark.parametrize("method", ["lora", "oft"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_an_adapter_says_itself_what_it_is(tmp_path, kind, method):
    """Whatever ``finetuning_type`` says, it is merged for answering and goes on for training."""
    folder, before = saved(tmp_path, kind)
    merged = make(tmp_path, finetuning_type=method, adapter_name_or_path=folder).model(trainable=False)
    assert not hasattr(merged, "peft_config")
    torch.testing.assert_close(logits(merged), before, rtol=1e-3, atol=1e-4)
    if method == "lora":
        going_on = make(tmp_path, adapter_name_or_path=folder).model(trainable=True)
        torch.testing.assert_close(logits(going_on), before, rtol=1e-5, atol=1e-6)
        names = [name for name, one in going_on.named_parameters() if one.requires_grad]
        assert names
        assert all(f"{kind}_" in name for name in names)


def test_an_adapter_does_not_go_on_as_another_type(tmp_path):
    folder, _ = saved(tmp_path, "oft")
    with pytest.raises(
        ModelError, match=r"finetuning_type: lora: .*adapter is of type oft and cannot go on as another"
    ):
        make(tmp_path, finetuning_type="lora", adapter_name_or_path=folder).model(trainable=True)


def test_adapters_of_two_types_are_merged_in_their_order(tmp_path):
    first, _ = saved(tmp_path, "oft", "first")
    second, _ = saved(tmp_path, "lora", "second")
    theirs = PeftModel.from_pretrained(base_of(tmp_path), first).merge_and_unload()
    theirs = PeftModel.from_pretrained(theirs, second).merge_and_unload()
    ours = make(tmp_path, adapter_name_or_path=[first, second]).model(trainable=False)
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-4, atol=1e-5)


def test_a_new_adapter_begins_on_what_is_merged(tmp_path):
    folder, before = saved(tmp_path, "oft")
    run = make(tmp_path, adapter_name_or_path=folder, create_new_adapter=True, lora_rank=2)
    model = run.model(trainable=True)
    assert model.peft_config["default"].r == 2
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-4)


def test_an_adapter_can_lie_in_a_folder_inside(tmp_path):
    folder, before = saved(tmp_path, "lora", "repository/adapter")
    outer = str(tmp_path / "repository")
    with pytest.raises(ModelError, match=r"so it is no adapter\. adapter_folder can be adapter"):
        make(tmp_path, adapter_name_or_path=outer).model(trainable=False)
    for name in (outer, folder):
        model = make(tmp_path, adapter_name_or_path=name, adapter_folder="adapter").model(trainable=False)
        torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-4)


def test_keys_about_adapters_need_one(tmp_path):
    for settings in ({"adapter_folder": "a"}, {"create_new_adapter": True}):
        with pytest.raises(ConfigError, match="needs adapter_name_or_path"):
            make(tmp_path, finetuning_type="lora", **settings)


def test_a_prompt_cannot_be_merged_and_that_is_one_line(tmp_path):
    from peft import PromptTuningConfig, TaskType

    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2)
    get_peft_model(base_of(tmp_path), config).save_pretrained(tmp_path / "prompt")
    with pytest.raises(ModelError, match="PROMPT_TUNING cannot be merged") as error:
        make(tmp_path, adapter_name_or_path=str(tmp_path / "prompt")).model(trainable=False)
    assert "\n" not in str(error.value)


def test_terms_beside_a_shared_weight_are_not_merged(tmp_path):
    """Both would be added to the one weight: peft warns and does it."""
    tied = "llama?tie_word_embeddings=true"
    config = LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"])
    get_peft_model(base_of(tmp_path, tied), config).save_pretrained(tmp_path / "a", save_embedding_layers=False)
    with pytest.raises(ModelError, match="terms beside embeddings or an output layer that share a weight"):
        make(tmp_path, tied, adapter_name_or_path=str(tmp_path / "a")).model(trainable=False)
    with pytest.raises(ModelError, match=r"lora_target: embed_tokens: .*Name it in additional_target"):
        make(tmp_path, tied, lora_target="embed_tokens").model(trainable=True)


@pytest.mark.parametrize("names", ["embed_tokens", "lm_head", "embed_tokens,lm_head"])
def test_a_shared_weight_learns_as_one_and_stays_one_when_merged(tmp_path, names):
    tied = "llama?tie_word_embeddings=true"
    model = make(tmp_path, tied, additional_target=names).model(trainable=True)
    whole = [one for name, one in model.named_parameters() if one.requires_grad and "lora_" not in name]
    assert len(whole) == 1
    with torch.no_grad():
        whole[0].mul_(1.5)
    model.save_pretrained(tmp_path / "adapter")
    merged = make(tmp_path, tied, adapter_name_or_path=str(tmp_path / "adapter")).model(trainable=False)
    assert merged.lm_head.weight is merged.get_input_embeddings().weight
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged.lm_head.weight, 1.5 * base_of(tmp_path, tied).lm_head.weight)


def test_what_is_beneath_an_adapter_can_be_looked_at_and_comes_back(tmp_path):
    """Names and values of the base, fused experts and whole modules included."""
    run = make(tmp_path, "mixtral", additional_target="norm")
    model = run.model(trainable=True)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.01)
    before, wanted = logits(model), base_of(tmp_path, "mixtral").state_dict()
    with bare(model) as base:
        found = {name: value.clone() for name, value in base.state_dict().items()}
        assert not torch.equal(logits(base), before)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())
    assert torch.equal(logits(model), before)


LAYER = "model.language_model.layers"


def targets(tmp_path, wanted, family="llava", kept=(), freed=(), **settings):
    run = make(tmp_path, family, lora_target=",".join(wanted), **settings)
    model = run._loader.load_model(run)
    keep(run, kept, "a patch: true")
    free(run, freed, "a patch: false")
    found = find_targets(model, wanted, run, "lora_target")
    config = LoraConfig(target_modules=found.modules, exclude_modules=found.excluded)
    return {
        name.removeprefix("base_model.model.")
        for name, one in get_peft_model(model, config).named_modules()
        if hasattr(one, "lora_A")
    }


def test_all_leaves_out_what_a_patch_keeps(tmp_path):
    names = targets(tmp_path, ["all"], kept=[f"{LAYER}.0"])
    assert len(names) == 7
    assert all(name.startswith(f"{LAYER}.1.") for name in names)


def test_all_takes_in_what_a_patch_frees(tmp_path):
    names = targets(tmp_path, ["all"], freed=["model.multi_modal_projector"])
    assert {name for name in names if LAYER not in name} == {
        "model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2",
    }  # fmt: skip
    tower = {name for name in targets(tmp_path, ["q_proj"], freed=["model.vision_tower"]) if "vision" in name}
    assert len(tower) == 2


def test_what_a_patch_keeps_cannot_be_named(tmp_path):
    with pytest.raises(ModelError, match="lora_target: linear_1: linear_1 may not learn: a patch: true"):
        targets(tmp_path, ["linear_1"], kept=["model.multi_modal_projector"])
    run = make(tmp_path, additional_target="norm")
    keep(run, ["model.norm"], "a patch: true")
    with pytest.raises(ModelError, match="additional_target: norm: norm may not learn: a patch: true"):
        run.model(trainable=True)


def test_fused_experts_of_a_kept_layer_are_left_out(tmp_path):
    run = make(tmp_path, "qwen3_moe")
    keep(run, ["model.layers.0"], "a patch: true")
    names = [name for name, one in run.model(trainable=True).named_parameters() if one.requires_grad]
    assert any(".experts." in name for name in names)
    assert all(".layers.1." in name for name in names)


@needs_bnb
@pytest.mark.parametrize("method", ["lora", pytest.param("oft", marks=pytest.mark.needs("ftk-oft"))])
def test_on_a_quantised_model_one_adapter_stays_beside_and_more_are_refused(prove, tmp_path, method):
    done = prove(model_name_or_path="ftk://random/llama", finetuning_type=method, quantization_bit=4)
    shutil.copytree(done.folder, tmp_path / "copy")
    both = [str(done.folder), str(tmp_path / "copy")]
    with pytest.raises(ConfigError, match="adapter_name_or_path>1 exclude each other"):
        make(tmp_path, adapter_name_or_path=both, quantization_bit=4)
    with pytest.raises(ConfigError, match="create_new_adapter and quantizer exclude each other"):
        make(tmp_path, adapter_name_or_path=both[0], create_new_adapter=True, quantization_bit=4)


def learning_rows(tmp_path, method, **settings):
    """What learns beside the adapter when the run has added the tokens 5 and 7; it is saved, merged and compared."""
    run = make(tmp_path, finetuning_type=method, **settings)
    run.__dict__["tokens"] = replace(run.tokens, added=(5, 7))
    model = run.model(trainable=True)
    ends = {name: one for name, one in model.named_parameters() if one.requires_grad and f".{method}_" not in name}
    for one in ends.values():
        one.data.mul_(2)
    model.save_pretrained(tmp_path / method, save_embedding_layers=False)
    merged = make(tmp_path, adapter_name_or_path=str(tmp_path / method)).model(trainable=False)
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-3, atol=1e-4)
    return ends


def test_with_lora_only_the_rows_of_new_tokens_learn(tmp_path):
    ends = learning_rows(tmp_path, "lora")
    assert {one.shape for one in ends.values()} == {(2, 64)}
    assert len(ends) == 2
    assert {one.shape for one in learning_rows(tmp_path, "lora", additional_target="lm_head").values()} == {
        (2, 64), (2560, 64),
    }  # fmt: skip


def test_with_oft_the_embeddings_learn_as_a_whole_when_there_are_new_tokens(tmp_path):
    assert [one.shape for one in learning_rows(tmp_path, "oft").values()] == [(2560, 64), (2560, 64)]
