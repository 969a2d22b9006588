"""What ``ftk plan`` estimates against what happens.

References: the most bytes that torch's allocator gave out while the run trained (torch.profiler), the most memory of a
process that trains (getrusage), the steps and tokens of a run's own log, and sizes counted by hand.
"""

import json
from pathlib import Path

import pytest
import torch
import yaml
from ftk import ConfigError
from ftk.opening import plan_run
from ftk.run import execute
from ftk.testing import check_plugin
from ftk_plan.device import Device
from ftk_plan.memory import estimate
from ftk_plan.plan_command import find_out
from ftk_plan.rows import look_at
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

needs = pytest.mark.needs

ROWS = [{"instruction": f"Repeat {word}.", "output": " ".join([word] * 40)} for word in ("one", "two", "six") * 8]
PAIRS = [{"instruction": "Say yes.", "chosen": "yes " * 20, "rejected": "no " * 30}] * 8
SIZES = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 8}
"""With 258 tokens 5.2 million parameters."""


def write_model(folder, dtype=torch.float32, **sizes):
    """A random model and a tokenizer with a token for each byte."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(bytes_)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>").save_pretrained(folder)
    config = LlamaConfig(vocab_size=len(tokenizer.get_vocab()), **sizes)
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def middling(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("middling"), **SIZES)


@pytest.fixture
def config(tmp_path):
    """``config(key=value)``: the path of a YAML of a small run."""

    def write(rows=ROWS, **settings):
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        settings = {
            "model_name_or_path": "ftk://random/llama", "template": "chatml",
            "dataset": [{"file_name": str(tmp_path / "rows.json"), "ranking": rows is PAIRS}],
            "output_dir": str(tmp_path / "out"), "cutoff_len": 256, "per_device_train_batch_size": 4, "use_cpu": True,
            "preprocessing_num_workers": 1, "logging_steps": 1, **settings,
        }  # fmt: skip
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
        return str(tmp_path / "run.yaml")

    return write


def costs_of(path, sample=1000):
    return find_out(plan_run(path, []), [], sample, probed=False, suggest=False)


def memory_of(path):
    plan = plan_run(path, [])
    return estimate(plan, [], look_at(plan, [], 1000))


def test_the_plugin_keeps_the_contract():
    assert check_plugin("plan")


def allocated(path, **settings):
    """The most bytes that the allocator had given out at once while a run trained two steps on its longest rows."""
    more = {"max_steps": 2, "train_sampling_strategy": "group_by_length", "save_strategy": "no", "plot_loss": False}
    words = [f"--{key}={json.dumps(value)}" for key, value in {**more, **settings}.items()]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        execute(plan_run(path, words))
    events = (one for one in profiled.profiler.kineto_results.events() if one.name() == "[memory]")
    now = peak = 0
    for _, size in sorted((one.start_ns(), one.nbytes()) for one in events):
        now += size
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize(
    "settings",
    [
        {"finetuning_type": "full"},
        {"finetuning_type": "lora"},
        {"finetuning_type": "full", "gradient_checkpointing": True},
        pytest.param({"finetuning_type": "freeze", "freeze_trainable_layers": 1}, marks=needs("ftk-freeze")),
        {"finetuning_type": "full", "gradient_accumulation_steps": 2, "optim": "adafactor"},
        pytest.param({"finetuning_type": "full", "use_galore": True, "galore_rank": 8}, marks=needs("ftk-galore")),
        {"finetuning_type": "full", "pure_bf16": True, "per_device_train_batch_size": 1},  # a CPU's bfloat16 is slow
        {"finetuning_type": "lora", "stage": "dpo"},
        {"finetuning_type": "full", "stage": "dpo"},
        {"finetuning_type": "lora", "stage": "rm"},
    ],
    ids=lambda settings: "-".join(f"{value}" for value in settings.values()),
)
def test_the_estimate_is_what_the_allocator_gives_out(config, middling, tmp_path, settings):
    """Within 15%; of stages with losses of their own 30%, because their logits are estimated as SFT's."""
    own = settings.get("stage")
    if settings.get("pure_bf16"):  # stored so, too: what the loader's threads cast, the profiler does not see
        middling = write_model(tmp_path / "half", torch.bfloat16, **SIZES)
    path = config(PAIRS if own else ROWS, model_name_or_path=middling, **settings)
    found = memory_of(path)
    assert found.total == pytest.approx(allocated(path), rel=0.3 if own else 0.15)
    assert found.notes == []


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 5, "num_train_epochs": 2}, {"packing": True}])
def test_steps_and_tokens_are_those_of_the_run(config, tmp_path, settings):
    path = config(model_name_or_path="ftk://random/llama", plot_loss=False, save_strategy="no", **settings)
    found = costs_of(path).schedule
    metrics = execute(plan_run(path, []))
    assert found.num_steps == metrics["train_steps"]
    # in packs the padding counts as documents of its own
    assert found.num_tokens == pytest.approx(
        metrics["num_input_tokens_seen"], rel=0.01 if settings.get("packing") else 1e-6
    )


def test_a_sample_is_scaled_to_all_rows_and_says_so(config):
    path = config()
    plan = plan_run(path, [])
    part, whole = look_at(plan, [], 6), look_at(plan, [], None)
    assert (part.exact, whole.exact) == (False, True)
    assert "sample of 6" in part.source
    assert part.num_rows == whole.num_rows == len(ROWS)
    assert part.tokens_per_row == pytest.approx(whole.tokens_per_row, rel=0.05)


def test_parameters_that_learn_are_counted_without_weights(config, middling):
    lora = memory_of(config(model_name_or_path=middling, lora_rank=4, lora_target="q_proj"))
    assert lora.num_trainable == 4 * 2 * 256 * SIZES["num_hidden_layers"]
    full = memory_of(config(model_name_or_path=middling, finetuning_type="full"))
    assert full.num_trainable == full.num_parameters == lora.num_parameters - lora.num_trainable
    assert full.optimizer == pytest.approx(2 * full.gradients, rel=0.01)


@needs("ftk-bnb")
def test_quantised_weights_are_their_bits_and_scales(config, middling):
    """The layers of a block in 4.5 bits; embeddings and the output layer as they are, and the adapter in float32."""
    plain = memory_of(config(model_name_or_path=middling, finetuning_type="lora"))
    packed = memory_of(config(model_name_or_path=middling, finetuning_type="lora", quantization_bit=4))
    linear = SIZES["num_hidden_layers"] * (4 * 256 * 256 + 3 * 256 * 768)
    assert plain.weights - packed.weights == pytest.approx(linear * (4 - 4.5 / 8), rel=1e-3)
    assert "4.5 bits" in packed.notes[0]


def test_a_pair_is_two_sequences_and_a_copy_to_measure_against_is_counted(config, middling):
    settings = {"model_name_or_path": middling, "stage": "dpo", "per_device_train_batch_size": 2}
    lora = costs_of(config(PAIRS, **settings))
    assert (lora.rows.forward_rows, lora.memory.batch[0], lora.memory.reference) == (2, 4, 0)
    full = memory_of(config(PAIRS, finetuning_type="full", **settings))
    assert full.reference == full.gradients
    assert memory_of(config(PAIRS, finetuning_type="full", precompute_ref_log_probs=True, **settings)).reference == 0


@needs("ftk-pissa")
def test_an_adapter_that_needs_the_weights_says_so(config):
    with pytest.raises(ConfigError, match=r"without weights.*--probe"):
        memory_of(config(pissa_init=True))


def test_what_does_not_fit_is_told_with_what_to_change(config, ftk_cli, monkeypatch):
    small = Device("a small one", 10 * 2**20, 20 * 2**20, 2**20, 0.0)
    monkeypatch.setattr("ftk_plan.plan_command.device_of", lambda use_cpu: small)
    path = config(finetuning_type="full", per_device_train_batch_size=16)
    told = ftk_cli("plan", path, "--json")
    assert told.exit_code == 1
    found = json.loads(told.stdout[told.stdout.index("{") :])
    assert not found["fits"]
    changes = [tuple(one["settings"]) for one in found["suggestions"]]
    assert changes[:2] == [("gradient_checkpointing",), ("per_device_train_batch_size", "gradient_accumulation_steps")]
    assert all(one["saves"] > 0 for one in found["suggestions"])
    shown = ftk_cli("plan", path)
    assert "It does not fit: 10.5 MB of 21 MB are free" in shown.output
    assert "per_device_train_batch_size: 1" in shown.output
    assert "Plan of" in shown.output


def test_a_probe_measures_the_process_and_the_estimate_is_near_it(config, middling):
    """Within 30%: on a CPU the C library keeps pieces of memory that nobody can foresee."""
    path = config(model_name_or_path=middling, finetuning_type="full", per_device_train_batch_size=8)
    costs = find_out(plan_run(path, []), [], 1000, probed=True, suggest=False)
    peak, what = costs.measured
    assert what == "the process"
    assert costs.needed == peak
    assert costs.estimate == pytest.approx(peak, rel=0.3)
    assert not Path(costs.plan.value("output_dir")).exists()


@needs("bitsandbytes", "ftk-moe")
def test_what_cannot_run_without_numbers_is_sampled_or_said(config, middling, monkeypatch):
    from bitsandbytes.optim import GlobalOptimManager

    # what a run that trained in this process before leaves there: its embedding wanted 32 bits
    monkeypatch.setattr(GlobalOptimManager.get_instance(), "index2config", {(0, 0): {"optim_bits": 32}})
    eight = memory_of(config(model_name_or_path=middling, finetuning_type="full", optim="adamw_bnb_8bit"))
    assert eight.optimizer == pytest.approx(2 * eight.num_trainable, rel=0.1), "two moments of a byte each"
    assert "matrix of 512 x 512" in eight.notes[0]
    experts = memory_of(config(model_name_or_path="ftk://random/mixtral"))
    assert experts.activations or "--probe" in experts.notes[0]
