"""OFT against Qiu et al. 2023: y = W R x with R block-diagonal and each block (I + Q)(I - Q)^-1 of a skew-symmetric Q
(Cayley), here with the inverse as Neumann's series of four terms, written out naively with torch alone."""

import pytest
import torch
from ftk import ModelError
from ftk.errors import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_training.learning import keep

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])


def make(tmp_path, family="llama", **settings):
    defaults = {"model_name_or_path": f"ftk://random/{family}", "finetuning_type": "oft"}
    return Run(plan_in(tmp_path, **{**defaults, **settings}))


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS_BT, use_cache=False).logits


def shake(model):
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "oft_R" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def rotation(numbers_BK, size):
    """The blocks (I + Q)(I + Q + Q^2 + Q^3) of B skew-symmetric Q, whose K upper entries are given."""
    blocks = []
    for numbers_K in numbers_BK:
        q = torch.zeros(size, size)
        rows, columns = torch.triu_indices(size, size, 1)
        q[rows, columns] = numbers_K
        q = q - q.T
        inverse = sum(torch.linalg.matrix_power(q, power) for power in range(4))
        blocks.append((torch.eye(size) + q) @ inverse)
    return torch.block_diag(*blocks)


def test_the_plugin_keeps_the_contract():
    assert check_plugin("oft")


def test_a_new_adapter_changes_nothing(tmp_path):
    run = make(tmp_path)
    before = logits(run._loader.load_model(run))
    torch.testing.assert_close(logits(run.model(trainable=True)), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{"oft_block_size": 16}, {"oft_rank": 4}])
def test_a_layer_rotates_its_inputs_in_blocks(tmp_path, settings):
    model = shake(make(tmp_path, **settings).model(trainable=True)).eval()
    layer = model.base_model.model.model.layers[1].self_attn.q_proj
    numbers = layer.oft_R["default"].weight
    assert numbers.shape == (4, 16 * 15 // 2)
    r = rotation(numbers, 16)
    torch.testing.assert_close(r @ r.T, torch.eye(64), atol=2e-3, rtol=0)
    x = torch.randn(3, 64)
    torch.testing.assert_close(layer(x), x @ r @ layer.base_layer.weight.T, rtol=1e-4, atol=1e-5)


def test_only_the_rotations_learn(tmp_path):
    model = make(tmp_path).model(trainable=True)
    names = [name for name, one in model.named_parameters() if one.requires_grad]
    assert len(names) == 7 * 2
    assert all("oft_R" in name for name in names)


def test_merging_equals_the_adapter_beside_the_model(tmp_path):
    """With ``finetuning_type: lora``, too: an adapter says itself what it is."""
    model = shake(make(tmp_path).model(trainable=True))
    model.save_pretrained(tmp_path / "adapter")
    for method in ("oft", "lora"):
        run = make(tmp_path, adapter_name_or_path=str(tmp_path / "adapter"), finetuning_type=method)
        merged = run.model(trainable=False)
        assert not hasattr(merged, "peft_config")
        torch.testing.assert_close(logits(merged), logits(model), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"oft_target": "q_projj"}, "the model has no such linear layer. Did you mean q_proj?"),
        ({"oft_rank": 4, "oft_block_size": 8}, "oft_block_size says the same. Take one out"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, settings, said):
    with pytest.raises((ModelError, ConfigError)) as error:
        make(tmp_path, **settings).model(trainable=True)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_sizes_of_nothing_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="oft_rank and oft_block_size are both 0"):
        make(tmp_path, oft_block_size=0)


def test_shared_embeddings_are_refused(tmp_path):
    with pytest.raises(ModelError, match="shares its weight with the embeddings"):
        make(tmp_path, "llama?tie_word_embeddings=true", additional_target="embed_tokens").model(trainable=True)


def test_what_a_patch_keeps_gets_no_rotation(tmp_path):
    run = make(tmp_path)
    keep(run, ["model.layers.0"], "a patch")
    names = [name for name, one in run.model(trainable=True).named_parameters() if one.requires_grad]
    assert len(names) == 7
    assert all(".layers.1." in name for name in names)


@pytest.mark.parametrize("family", ["llama", "mixtral", "llava"])
def test_a_run_is_saved_loaded_and_resumed_exactly(prove, family):
    prove(model_name_or_path=f"ftk://random/{family}", finetuning_type="oft", oft_block_size=16)
