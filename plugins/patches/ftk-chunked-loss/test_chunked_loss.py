"""The chunked loss against the formula over all logits, written naively in float64, and against each model's own."""

import copy
import json
import logging
from types import MethodType, SimpleNamespace

import pytest
import torch
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_chunked_loss import ChunkedLossOptions
from ftk_chunked_loss.chunks import Task, total_loss, total_without_gradient
from ftk_chunked_loss.patching import ChunkedForward, backbone_names, patch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

SIZES = pytest.mark.parametrize("size", [1, 3, 8, 100])


def test_the_plugin_keeps_the_contract():
    assert check_plugin("chunked-loss")


# The sum


def naive(logits_NV, labels_N, weights_N, smoothing):
    """Minus the log-probability of each word, ``smoothing`` of it taken from the mean over all words, weighted."""
    logs_NV = logits_NV - logits_NV.exp().sum(-1, keepdim=True).log()
    right_N = logs_NV[torch.arange(len(labels_N)), labels_N]
    return -(weights_N * ((1 - smoothing) * right_N + smoothing * logs_NV.mean(-1))).sum()


def numbers(dtype=torch.float64):
    torch.manual_seed(0)
    hidden_NH = torch.randn(8, 4, dtype=dtype, requires_grad=True)
    layer = nn.Linear(4, 11, dtype=dtype)
    return hidden_NH, layer, torch.randint(0, 11, (8,)), torch.rand(8, dtype=dtype)


@SIZES
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_sum_and_gradients_are_those_of_the_formula(size, weighted, smoothing):
    hidden_NH, layer, labels_N, weights_N = numbers()
    capped = lambda part_CH: 3 * torch.tanh(layer(part_CH) / 3)  # noqa: E731
    learning = [hidden_NH, layer.weight, layer.bias]
    ones_N = torch.ones(8, dtype=torch.float64)
    wanted = naive(capped(hidden_NH), labels_N, weights_N if weighted else ones_N, smoothing)
    wanted_gradients = torch.autograd.grad(wanted * 0.7, learning)
    task = Task(capped, size, labels_N, weights_N if weighted else None, smoothing)
    total = total_loss(task, hidden_NH, learning[1:])
    found = torch.autograd.grad(total * 0.7, learning)
    assert total.item() == pytest.approx(wanted.item(), rel=1e-12)
    for one, other in zip(found, wanted_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        alone, right = total_without_gradient(task, hidden_NH)
    assert alone.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert right == (capped(hidden_NH).argmax(-1) == labels_N).sum()


def test_half_precision_sums_gradients_in_float32():
    """256 equal gradients of 1/2: a sum in bfloat16 stops growing at 128, where its digits are 1 apart."""
    layer = nn.Linear(1, 2, bias=False, dtype=torch.bfloat16)
    nn.init.zeros_(layer.weight)
    task = Task(layer, 1, torch.zeros(512, dtype=torch.int64))
    total_loss(task, torch.ones(512, 1, dtype=torch.bfloat16), [layer.weight]).backward()
    assert layer.weight.grad.tolist() == [[-256], [256]]


def test_float16_gradients_are_computed_with_the_loss_scale():
    """In float16 the smallest number is 6e-8; gradients below it survive only when the scale comes first."""
    hidden_NH, layer, labels_N, _ = numbers(torch.float16)
    weights_N = torch.full((8,), 1e-6, dtype=torch.float16)
    total_loss(Task(layer, 3, labels_N, weights_N), hidden_NH, list(layer.parameters())).mul(2.0**14).backward()
    double = [hidden_NH.detach().double().requires_grad_(), layer.weight.detach().double().requires_grad_()]
    logits = nn.functional.linear(*double, layer.bias.detach().double())
    (naive(logits, labels_N, weights_N.double(), 0.0) * 2.0**14).backward()
    torch.testing.assert_close(hidden_NH.grad.double(), double[0].grad, rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad.double(), double[1].grad, rtol=1e-2, atol=1e-5)


def test_a_batch_without_trained_tokens_has_zero_gradients():
    hidden_NH, layer, labels_N, _ = numbers()
    total_loss(Task(layer, 3, labels_N[:0]), hidden_NH[:0], [layer.weight]).backward()
    assert torch.equal(hidden_NH.grad, torch.zeros(8, 4, dtype=torch.float64))
    assert torch.equal(layer.weight.grad, torch.zeros(11, 4, dtype=torch.float64))


class Largest(TorchDispatchMode):
    """The most elements that any tensor had."""

    size = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        out = function(*arguments, **(named or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, torch.Tensor):
                self.size = max(self.size, one.numel())
        return out


def test_no_tensor_is_larger_than_the_logits_of_a_chunk():
    hidden_NH = torch.randn(500, 4, requires_grad=True)
    layer = nn.Linear(4, 1000).requires_grad_(False)
    with Largest() as largest:
        total_loss(Task(layer, 10, torch.randint(0, 1000, (500,))), hidden_NH, []).backward()
    assert largest.size == 10 * 1000


# Models


def model_of(tmp_path, address, **settings):
    settings = {"finetuning_type": "full", "chunked_loss": False, **settings}
    model = Run(plan_in(tmp_path, model_name_or_path=address, **settings)).model(trainable=True)
    model.set_experts_implementation("eager")  # the others want float32
    return model.double().eval()


def chunked(model, size=5):
    """A copy with the loss in chunks; the first module that will do is the backbone."""
    model = copy.deepcopy(model)
    for name in backbone_names(model):
        patched = ChunkedForward(model, name, size)
        why = patched.differs(model)
        if not why:
            patched.install(model)
            return model
    raise AssertionError(why)


def batch_for(model):
    torch.manual_seed(0)
    ids = torch.randint(5, 300, (3, 12))
    labels = ids.clone()
    labels[:, :4] = labels[1, 8:] = labels[2] = -100
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def outcome(model, batch):
    output = model(**batch)
    model.zero_grad()
    output.loss.backward()
    gradients = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    return output.loss.item(), gradients


def assert_same(found, wanted):
    (loss, gradients), (wanted_loss, wanted_gradients) = found, wanted
    assert loss == pytest.approx(wanted_loss, rel=1e-6)  # transformers' own sum is in float32
    assert gradients.keys() == wanted_gradients.keys()
    norm = max(one.abs().max() for one in wanted_gradients.values())
    for name, gradient in wanted_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6 * float(norm), msg=name)


FAMILIES = [
    "llama", "llama?tie_word_embeddings=true", "gemma2", "cohere", "granite", "phi", "gpt2", "mamba", "opt", "falcon",
    "mixtral?output_router_logits=true&router_aux_loss_coef=5.0", "deepseek_v3", "gpt_oss?output_router_logits=true",
]  # fmt: skip
"""Plain; tied; soft caps; scaled; divided; with a bias; no attention; a backbone within another; MoE with and without
a loss of its balance."""


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_the_models_own(tmp_path, family):
    model = model_of(tmp_path, f"ftk://random/{family}")
    batch = batch_for(model)
    for more in ({}, {"num_items_in_batch": torch.tensor(40)}):
        wanted = outcome(model, batch | more)
        assert_same(outcome(chunked(model), batch | more), wanted)


def test_the_loss_is_the_formula_over_the_models_logits(tmp_path):
    model = model_of(tmp_path, "ftk://random/gemma2?final_logit_softcapping=2.0")
    batch = batch_for(model)
    logits_BTV = model(batch["input_ids"]).logits
    trained = batch["labels"][:, 1:] != -100
    labels_N = batch["labels"][:, 1:][trained]
    wanted = naive(logits_BTV[:, :-1][trained], labels_N, torch.ones(len(labels_N)), 0.0)
    assert outcome(chunked(model), batch)[0] == pytest.approx(wanted.item() / len(labels_N), rel=1e-12)


def test_kept_positions_weights_and_smoothing(tmp_path):
    model = model_of(tmp_path, "ftk://random/llama")
    batch = batch_for(model)
    kept = torch.tensor([3, 4, 9])
    shifted, weights = batch["labels"][:, 1:][:, kept], torch.rand(3, 3, dtype=torch.float64)
    logits = model(batch["input_ids"]).logits[:, kept]
    on = shifted != -100
    wanted = naive(logits[on], shifted[on], weights[on], 0.1) / 40
    call = {"logits_to_keep": kept, "shift_labels": shifted, "loss_weights": weights, "label_smoothing": 0.1}
    loss, _ = outcome(chunked(model), batch | call | {"num_items_in_batch": 40})
    assert loss == pytest.approx(wanted.item(), rel=1e-12)


@pytest.mark.parametrize(
    "adapter",
    [{"target_modules": ["q_proj", "lm_head"]}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
     {"target_modules": ["q_proj"]}],
    ids=["low rank output", "output learns", "output is frozen"],
)  # fmt: skip
def test_adapters_reach_the_output_layer(tmp_path, adapter):
    base = model_of(tmp_path, "ftk://random/llama")
    models = []
    for one in (base, chunked(base)):
        torch.manual_seed(1)
        config = LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False, **adapter)
        models.append(get_peft_model(copy.deepcopy(one), config).double().eval())
    wanted = outcome(models[0], batch_for(base))
    assert_same(outcome(models[1], batch_for(base)), wanted)
    assert any("lm_head" in name for name in wanted[1]) == ("lm_head" in str(adapter))


def test_a_quantised_base_learns_the_same(tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    path = Run(plan_in(tmp_path, model_name_or_path="ftk://random/llama")).model_path
    models = []
    for patched in (False, True):
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
        base = AutoModelForCausalLM.from_pretrained(path, quantization_config=config)
        if patched:
            forward = ChunkedForward(base, "model", 5)
            assert not forward.differs(base)
            forward.install(base)
        torch.manual_seed(1)
        config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
        models.append(get_peft_model(base, config).eval())
    assert_same(*[outcome(model, batch_for(model)) for model in reversed(models)])


def test_an_evaluation_counts_what_is_right_without_logits(tmp_path):
    model = model_of(tmp_path, "ftk://random/llama")
    batch = batch_for(model)
    with torch.no_grad():
        wanted, output = model(**batch), chunked(model)(**batch)
    right = (wanted.logits[:, :-1].argmax(-1) == batch["labels"][:, 1:]) & (batch["labels"][:, 1:] != -100)
    assert output.loss.item() == pytest.approx(wanted.loss.item(), rel=1e-6)
    assert output["num_right"] == right.sum()
    assert "logits" not in output


def test_a_call_without_labels_is_the_models_own(tmp_path):
    model = model_of(tmp_path, "ftk://random/llama")
    ids = torch.arange(8)[None]
    assert torch.equal(chunked(model)(ids).logits, model(ids).logits)
    assert torch.equal(*[one.generate(ids, max_new_tokens=4, do_sample=False) for one in (model, chunked(model))])


# Where it does not apply


def told(caplog, model, tmp_path, **settings):
    run = Run(plan_in(tmp_path, **settings))
    with caplog.at_level(logging.INFO, "ftk.chunked_loss"):
        assert patch(model, run) is model
    return caplog.text


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("logits", "its forward cannot be called that way"),
        ("scale", "on a small batch its own loss or gradient differs"),
    ],
)
def test_a_forward_that_does_more_keeps_its_own_loss(tmp_path, caplog, where, why):
    model = model_of(tmp_path, "ftk://random/llama")
    own = model.forward.__func__

    def forward(self, *arguments, labels=None, **named):
        output = own(self, *arguments, labels=labels, **named)
        if where == "logits" and labels is not None:  # a loss that does not come from transformers' function
            output.loss = output.logits.square().mean()
        elif where == "scale" and labels is None:
            output.logits = output.logits * 2
        return output

    model.forward = MethodType(forward, model)
    before = model.forward
    assert f"not in chunks: {why}" in told(caplog, model, tmp_path)
    assert model.forward is before


def test_a_model_with_another_loss_keeps_it(tmp_path, caplog):
    model = model_of(tmp_path, "ftk://random/llama")
    model.loss_function = lambda **_: 0
    assert "not in chunks: its loss is <lambda>" in told(caplog, model, tmp_path)


def test_torch_compile_gets_the_model_as_it_is(tmp_path, caplog):
    model = model_of(tmp_path, "ftk://random/llama")
    assert "not in chunks: torch_compile" in told(caplog, model, tmp_path, torch_compile=True)


def test_a_model_that_answers_is_left_alone():
    model = open_run("chat", None, ["--model_name_or_path", "ftk://tiny-chat"]).model(trainable=False)
    assert "forward" not in vars(model)


def test_chunks_hold_32_million_logits_unless_the_yaml_says_otherwise():
    def size(words, wanted=None):
        output = SimpleNamespace(weight=torch.empty(words, 1, device="meta"))
        config = SimpleNamespace(get_text_config=dict)
        model = SimpleNamespace(config=config, forward=lambda self: None, get_output_embeddings=lambda: output)
        return ChunkedForward(model, "model", wanted).size

    assert (size(150_000), size(32_000), size(150_000, 7)) == (256, 1048, 7)
    assert ChunkedLossOptions().chunked_loss


# Runs


ROWS = [{"instruction": "say " * (1 + 5 * (n % 3)), "output": "well then " * (1 + n % 4)} for n in range(12)]


def losses(folder):
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


@pytest.mark.parametrize(
    "settings",
    [{"finetuning_type": "full", "gradient_accumulation_steps": 2}, {"finetuning_type": "lora", "bf16": True},
     {"finetuning_type": "lora", "packing": True, "template": "chatml"}, {"label_smoothing_factor": 0.2},
     {"model_name_or_path": "ftk://random/mixtral?output_router_logits=true", "gradient_checkpointing": True}],
    ids=str,
)  # fmt: skip
def test_a_run_is_the_one_with_the_models_own_loss(tmp_path, settings):
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(ROWS))
    more = {"do_eval": True, "eval_dataset": str(rows), "compute_accuracy": True, "chunked_loss_size": 4}
    settings = {"template": "chatml", "dataset": str(rows), "max_steps": 3, **more, **settings}
    one, other = (
        run_in(tmp_path, **settings, chunked_loss=on, output_dir=str(tmp_path / str(on))) for on in (True, False)
    )
    exact = 2e-2 if settings.get("bf16") else 1e-4
    for found, wanted in zip(losses(one.folder), losses(other.folder), strict=True):
        assert found == pytest.approx(wanted, rel=exact)
    for name in ("eval_loss", "eval_accuracy"):
        assert one.metrics[name] == pytest.approx(other.metrics[name], rel=exact)
    assert "chunked-loss" in one.record["chosen"]["model_patch"]


def test_the_result_answers_as_the_model_that_was_trained(tmp_path):
    finished = run_in(tmp_path, max_steps=3, finetuning_type="full", template="chatml")
    ids = torch.arange(8)[None]
    trained = open_run("chat", str(finished.folder), ["--template", "chatml"]).model(trainable=False)
    other = run_in(tmp_path, max_steps=3, finetuning_type="full", template="chatml", chunked_loss=False,
                   output_dir=str(tmp_path / "plain"))  # fmt: skip
    plain = open_run("chat", str(other.folder), ["--template", "chatml"]).model(trainable=False)
    torch.testing.assert_close(trained(ids).logits, plain(ids).logits, rtol=1e-3, atol=1e-3)
