"""The value head against its formula, ``hidden · w + b`` on the last hidden states that transformers itself returns
(``output_hidden_states``), which is what TRL's ``AutoModelForCausalLMWithValueHead`` computed.
"""

import copy
import itertools
import json
import os
import pickle

import pytest
import torch
from ftk import CheckpointError
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_training import fitting, value_head
from ftk_training.value_head import FILE, KEYS, OLD_FILE, attach, head_of, values
from safetensors.torch import load_file, save_file

FAMILIES = ("llama", "gpt2", "gemma2", "cohere", "qwen3_moe", "mamba", "opt", "llava")
METHODS = {
    "full": {"finetuning_type": "full"},
    "lora": {"finetuning_type": "lora", "lora_rank": 2},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
}
EACH_METHOD = ["full", "lora", pytest.param("freeze", marks=pytest.mark.needs("ftk-freeze"))]
IDS_BT = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])


def model_in(folder, family="llama", **settings):
    settings = {"finetuning_type": "lora", "lora_rank": 2, **settings}
    return Run(plan_in(folder, model_name_or_path=f"ftk://random/{family}", **settings)).model(trainable=True)


def naive(model, head):
    """The formula on the states that transformers returns."""
    hidden_BTH = model(input_ids=IDS_BT, output_hidden_states=True, use_cache=False).hidden_states[-1]
    return (hidden_BTH.float() * head.summary.weight[0]).sum(-1) + head.summary.bias


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_a_linear_function_of_the_last_hidden_states(tmp_path, family):
    model = model_in(tmp_path, family).eval()
    head = attach(model, seed=1)
    with torch.no_grad():
        found = values(model, {"input_ids": IDS_BT, "labels": IDS_BT})
        torch.testing.assert_close(found, naive(model, head))
    assert found.shape == IDS_BT.shape
    assert found.dtype == torch.float32
    assert found.std() > 0


def test_the_logits_are_not_computed_for_them_and_are_there_for_who_wants_both(tmp_path):
    model = model_in(tmp_path).eval()
    attach(model)
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda module, _, output: seen.append(output.numel()))
    values(model, {"input_ids": IDS_BT})
    assert seen == [0]
    both = model(input_ids=IDS_BT)
    assert both.logits.shape[:2] == both["token_values"].shape == IDS_BT.shape


@pytest.mark.parametrize("method", EACH_METHOD)
def test_gradients_reach_the_head_and_what_learns(tmp_path, method):
    model = model_in(tmp_path, **METHODS[method])
    head = attach(model)
    values(model, {"input_ids": IDS_BT}).sum().backward()
    assert torch.equal(head.summary.bias.grad, torch.tensor([10.0]))
    learning = [one for one in model.parameters() if one.requires_grad and one.grad is not None]
    assert sum(float(one.grad.abs().sum()) > 0 for one in learning) > 2


def test_a_copy_of_the_model_has_a_head_of_its_own(tmp_path):
    model = model_in(tmp_path).eval()
    attach(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        head_of(twin).summary.bias.fill_(100.0)
        assert values(twin, {"input_ids": IDS_BT}).min() > 50
        assert values(model, {"input_ids": IDS_BT}).max() < 50


def test_another_head_can_speak_for_a_while(tmp_path):
    model = model_in(tmp_path).eval()
    own = attach(model)
    other = value_head.made_of({KEYS[0]: torch.zeros(1, 64), KEYS[1]: torch.tensor([3.0])})
    with value_head.using(model, other):
        assert torch.equal(values(model, {"input_ids": IDS_BT}), torch.full(IDS_BT.shape, 3.0))
    assert head_of(model) is own


def test_the_head_is_float32_on_a_model_in_bfloat16(tmp_path):
    model = model_in(tmp_path, finetuning_type="full", pure_bf16=True).eval()
    head = attach(model)
    assert model.dtype == torch.bfloat16
    assert head.summary.weight.dtype == torch.float32
    assert values(model, {"input_ids": IDS_BT}).dtype == torch.float32


@pytest.mark.needs("ftk-bnb", "bitsandbytes")
def test_a_quantised_base_has_one(tmp_path):
    model = model_in(tmp_path, quantization_bit=4).eval()
    head = attach(model)
    with torch.no_grad():
        torch.testing.assert_close(values(model, {"input_ids": IDS_BT}), naive(model, head))


def test_dropout_is_for_training_alone(tmp_path):
    model = model_in(tmp_path)
    attach(model, dropout=0.5)
    with torch.no_grad():
        batch = {"input_ids": IDS_BT}
        assert not torch.equal(values(model.train(), batch), values(model, batch))
        assert torch.equal(values(model.eval(), batch), values(model, batch))


# Files


def state(width=64):
    return {KEYS[0]: torch.randn(1, width), KEYS[1]: torch.randn(1)}


def test_the_file_has_the_names_that_llamafactory_writes(tmp_path):
    value_head.save(with_head(tmp_path), tmp_path)
    assert set(load_file(tmp_path / FILE)) == {"v_head.summary.weight", "v_head.summary.bias"}


def with_head(folder, **settings):
    model = model_in(folder, **settings)
    attach(model, seed=3)
    return model


def test_a_head_of_an_old_program_is_read_as_tensors(tmp_path):
    torch.save(state() | {"pretrained_model.x": torch.zeros(1)}, tmp_path / OLD_FILE)
    assert set(value_head.read(tmp_path)) == set(KEYS)
    assert value_head.read(tmp_path / "nowhere") is None


class Evil:
    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_pickled_object_is_refused_and_not_run(tmp_path):
    evil = Evil()
    evil.path = str(tmp_path / "run by the pickle")
    torch.save({**state(), "more": evil}, tmp_path / OLD_FILE)
    with pytest.raises(CheckpointError, match=r"value_head.bin: holds objects that are no tensors.* not read") as error:
        value_head.read(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / OLD_FILE).write_bytes(pickle.dumps(evil, protocol=2))
    with pytest.raises(CheckpointError):
        value_head.read(tmp_path)
    assert not (tmp_path / "run by the pickle").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"half a file", "is damaged"), (None, "lacks v_head.summary.bias; it holds v_head.summary.weight")],
)
def test_a_broken_file_is_said_in_one_line(tmp_path, content, said):
    if content is None:
        save_file({KEYS[0]: torch.zeros(1, 4)}, tmp_path / FILE)
    else:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        value_head.read(tmp_path)


def test_a_head_of_another_model_is_refused(tmp_path):
    save_file(state(width=8), tmp_path / FILE)
    with pytest.raises(CheckpointError, match=r"of width 8, the model's are 64 wide"):
        value_head.load(with_head(tmp_path), tmp_path)
    with pytest.raises(CheckpointError, match=r"has no value_head.safetensors"):
        value_head.load(with_head(tmp_path), tmp_path / "nowhere")


# Runs: the mean of the values, which is no sensible thing to learn, is learnt


def train(folder, name="out", **settings):
    defaults = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-2, "logging_steps": 1}
    run = Run(plan_in(folder, **{**defaults, "output_dir": str(folder / name), **settings}))
    run.output_dir.mkdir()
    fitting.fit(
        run,
        loss=lambda model, batch: (values(model, batch).pow(2).sum(), {}),
        count=lambda batch: batch["input_ids"].numel(),
        prepare=lambda model: value_head.with_value_head(run, model),
    )
    lines = [json.loads(line) for line in (folder / name / "trainer_log.jsonl").read_text().splitlines()]
    return run, [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("method", EACH_METHOD)
def test_it_is_saved_beside_the_weights_and_resumed(tmp_path, method, caplog):
    _, losses = train(tmp_path, **METHODS[method])
    folders = [tmp_path / "out", *(tmp_path / "out" / f"checkpoint-{step}" for step in (1, 2, 3))]
    heads = [value_head.read(folder) for folder in folders]
    assert torch.equal(heads[0][KEYS[0]], heads[3][KEYS[0]])
    assert not torch.equal(heads[1][KEYS[0]], heads[2][KEYS[0]])
    for folder in folders:
        assert not list(folder.glob("*.bin"))
        for path in folder.glob("*model*.safetensors"):
            assert not any("v_head" in key for key in load_file(path)), path
    _, later = train(tmp_path, "again", **METHODS[method], resume_from_checkpoint=str(folders[2]))
    assert later == losses[2:]
    assert torch.equal(value_head.read(tmp_path / "again")[KEYS[0]], heads[0][KEYS[0]])
    assert "missing keys" not in caplog.text


def test_the_best_head_is_the_result(tmp_path):
    """The loss is made to rise, so the best checkpoint is the first."""
    settings = {"val_size": 2, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    train(tmp_path, learning_rate=1.0, **settings)
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    best = tmp_path / "out" / f"checkpoint-{state['best_global_step']}"
    assert best.name != "checkpoint-3"
    assert (tmp_path / "out" / FILE).read_bytes() == (best / FILE).read_bytes()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_later_run_goes_on_from_the_head_of_the_model_or_adapter_it_names(tmp_path, method):
    train(tmp_path, **METHODS[method])
    key = {"full": "model_name_or_path", "lora": "adapter_name_or_path"}[method]
    run = Run(plan_in(tmp_path, **METHODS[method], **{key: str(tmp_path / "out")}, output_dir=str(tmp_path / "next")))
    model = value_head.with_value_head(run, run.model(trainable=True))
    assert torch.equal(head_of(model).summary.weight, value_head.read(tmp_path / "out")[KEYS[0]])


def test_it_learns_with_every_layer_where_layers_learn_in_turn(tmp_path):
    pytest.importorskip("ftk_badam", reason="needs an optimizer that lets layers learn in turn")
    turns = {"use_badam": True, "badam_switch_interval": 1, **METHODS["full"]}
    _, losses = train(tmp_path, **turns)
    heads = [value_head.read(tmp_path / "out" / f"checkpoint-{step}") for step in (1, 2, 3)]
    for earlier, later in itertools.pairwise(heads):
        assert all((earlier[key] != later[key]).all() for key in KEYS)
    _, rest = train(tmp_path, "again", **turns, resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert rest == losses[2:]
