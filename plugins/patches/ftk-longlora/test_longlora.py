"""S2-Attn against attention that is written out token by token: which group a token is in, and whom it sees there.

Also against the authors' algorithm 1 (Chen et al. 2023): roll half of the heads, reshape, attend, roll back.
"""

import json

import pytest
import torch
from ftk import ConfigError, ModelError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_longlora.shifting import grouped_attention
from transformers import AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward


def test_the_plugin_keeps_the_contract():
    assert check_plugin("longlora")


def sees(length, size, shift):
    """Who sees whom: the same group, no later token. Groups are moved by ``shift``, the first and last are short."""
    group = [(token + shift) // size for token in range(length)]
    return torch.tensor(
        [[group[one] == group[other] and other <= one for other in range(length)] for one in range(length)]
    )


def explicit(query, key, value, groups, mask=None):
    """(B, T, H, D), float64, a softmax for each head over what :func:`sees` allows."""
    heads, length = query.shape[1:3]
    size = -(-length // groups)
    times = heads // key.shape[1]
    outputs = []
    for head in range(heads):
        scores = query[:, head] @ key[:, head // times].mT / query.shape[-1] ** 0.5
        allowed = sees(
            length, size, -(-size // 2) if head >= heads // 2 and size % 2 else size // 2 if head >= heads // 2 else 0
        )
        if mask is not None:
            allowed = (allowed & mask[:, 0]) | torch.eye(length, dtype=torch.bool)
        outputs.append(scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ value[:, head // times])
    return torch.stack(outputs, dim=2)


class Module(torch.nn.Module):
    is_causal = True

    def __init__(self, times):
        super().__init__()
        self.num_key_value_groups = times


def states(length, heads=4, heads_of_keys=2):
    torch.manual_seed(length)
    return tuple(torch.randn(2, one, length, 8, dtype=torch.float64) for one in (heads, heads_of_keys, heads_of_keys))


@pytest.mark.parametrize("heads_of_keys", [4, 2, 1])
@pytest.mark.parametrize(("length", "groups"), [(16, 4), (17, 4), (23, 4), (24, 3), (8, 4), (9, 2)])
def test_it_is_attention_within_explicit_groups(length, groups, heads_of_keys):
    parts = states(length, 4, heads_of_keys)
    found, _ = grouped_attention(sdpa_attention_forward, Module(4 // heads_of_keys), parts, None, groups)
    torch.testing.assert_close(found, explicit(*parts, groups), rtol=1e-12, atol=1e-12)


def test_it_is_the_authors_algorithm_apart_from_the_leak():
    """Only the first half group of the moved heads differs: in theirs it sees the end of the text."""
    query, key, value = states(16, 4, 4)
    size = 4

    def rolled(one, by):
        return torch.cat([one[:, :2], one[:, 2:].roll(by, dims=2)], dim=1)

    def grouped(one):
        return one.unflatten(2, (4, size)).transpose(1, 2).flatten(0, 1)

    parts = [grouped(rolled(one, -size // 2)) for one in (query, key, value)]
    out = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
    theirs = rolled(out.unflatten(0, (2, 4)).transpose(1, 2).flatten(2, 3), size // 2).transpose(1, 2)
    ours, _ = grouped_attention(sdpa_attention_forward, Module(1), (query, key, value), None, 4)
    torch.testing.assert_close(ours[:, :, :2], theirs[:, :, :2])
    torch.testing.assert_close(ours[:, 2:, 2:], theirs[:, 2:, 2:])
    assert not torch.allclose(ours[:, :2, 2:], theirs[:, :2, 2:])


@pytest.mark.parametrize("additive", [False, True])
def test_masks_of_padding_and_documents_hold_within_groups(additive):
    parts = states(17)
    document = torch.tensor([0] * 6 + [1] * 11)
    mask = torch.ones(17, 17, dtype=torch.bool).tril() & (document[:, None] == document)
    mask = torch.stack([mask, torch.ones(17, 17, dtype=torch.bool).tril() & (torch.arange(17) < 7)])[:, None]
    given = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -1e30) if additive else mask
    found, _ = grouped_attention(sdpa_attention_forward, Module(2), parts, given, 4)
    torch.testing.assert_close(found, explicit(*parts, 4, mask), rtol=1e-12, atol=1e-12)


def shifted(tmp_path, address="ftk://random/llama", **more):
    settings = {"shift_attn": True, "finetuning_type": "full", **more}
    return Run(plan_in(tmp_path, model_name_or_path=address, **settings)).model(trainable=True).double()


FAMILIES = ["llama", "qwen3", "gemma2", "mixtral", "phi3", "deepseek_v3", "cohere2", "gpt_neox"]


@pytest.mark.parametrize("attention", ["sdpa", "disabled"])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_model_of_the_interface_is_shifted_in_training_and_whole_in_evaluation(tmp_path, family, attention):
    model = shifted(tmp_path, f"ftk://random/{family}", flash_attn=attention)
    model.set_experts_implementation("eager")
    settings = {"finetuning_type": "full", "flash_attn": attention}
    path = Run(plan_in(tmp_path, model_name_or_path=f"ftk://random/{family}", **settings)).model_path
    plain = AutoModelForCausalLM.from_pretrained(
        path, attn_implementation={"disabled": "eager"}.get(attention, attention)
    )
    plain = plain.double()
    plain.set_experts_implementation("eager")
    ids = torch.arange(16)[None] * 31 + 5
    torch.testing.assert_close(model.eval()(ids).logits, plain.eval()(ids).logits)
    in_training = model.train()(ids).logits
    assert not torch.allclose(in_training, plain(ids).logits)
    later = ids.clone()
    later[0, 9:] += 1
    torch.testing.assert_close(model(later).logits[:, :9], in_training[:, :9], msg="a token sees a later one")


def test_a_padded_row_is_the_row_alone(tmp_path):
    model = shifted(tmp_path).train()
    ids = torch.arange(16)[None] * 31 + 5
    padded = torch.cat([ids, ids * 0], dim=1)
    both = model(
        torch.cat([padded, torch.arange(32)[None] + 7]), attention_mask=(torch.arange(32) < torch.tensor([[16], [32]]))
    )
    both.logits[0, :16].sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in model.parameters() if one.grad is not None)
    alone = model(padded[:, :32], attention_mask=torch.arange(32)[None] < 16).logits
    torch.testing.assert_close(both.logits[0, :16], alone[0, :16])


@pytest.mark.parametrize(
    ("family", "why"), [("bloom", "attention interface"), ("gpt_oss", "sinks is a weight for each")]
)
def test_what_cannot_be_shifted_is_refused_in_one_line(tmp_path, family, why):
    with pytest.raises(ModelError, match=f"shift_attn: True: .*{why}") as caught:
        shifted(tmp_path, f"ftk://random/{family}")
    assert "\n" not in str(caught.value)


def test_flash_attention_is_refused_by_the_plan(tmp_path):
    with pytest.raises(ConfigError, match="model_patch:longlora and flash_attn=fa2 exclude each other"):
        plan_in(tmp_path, shift_attn=True, flash_attn="fa2")


def test_a_model_that_answers_attends_to_everything():
    model = open_run("chat", None, ["--model_name_or_path", "ftk://tiny-chat", "--shift_attn", "true"])
    assert model.model(trainable=False).config._attn_implementation == "sdpa"


def losses(folder):
    lines = (folder / "trainer_log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("packing", [False, True])
def test_a_run_trains_saves_resumes_and_answers(tmp_path, packing):
    settings = {"shift_attn": True, "finetuning_type": "full", "template": "chatml", "max_steps": 3, "packing": packing}
    finished = run_in(tmp_path, **settings, save_steps=2, save_strategy="steps")
    assert "shifted" not in (finished.folder / "config.json").read_text()
    resumed = run_in(
        tmp_path, **settings, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(finished.folder / "checkpoint-2"),
    )  # fmt: skip
    assert losses(resumed.folder)[-1] == losses(finished.folder)[-1]
    model = open_run("chat", str(finished.folder)).model(trainable=False)
    plain = AutoModelForCausalLM.from_pretrained(finished.folder)
    ids = torch.arange(16)[None] + 5
    assert torch.equal(model(ids).logits, plain(ids).logits)
    whole = run_in(tmp_path, **settings | {"shift_attn": False}, output_dir=str(tmp_path / "whole"))
    assert losses(whole.folder)[0] != pytest.approx(losses(finished.folder)[0], rel=1e-6)
