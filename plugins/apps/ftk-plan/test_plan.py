"""What ``ftk plan`` estimates against what happens.

References: the most bytes that torch's allocator gave out while the run trained (torch.profiler), the most memory of a
process that trains (getrusage), the steps and tokens of a run's own log, and sizes counted by hand.
"""

import json

import pytest
import torch
import yaml
from ftk.opening import plan_run
from ftk.run import execute
from ftk.testing import check_plugin
from ftk_plan.memory import estimate
from ftk_plan.plan_command import find_out
from ftk_plan.rows import look_at
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROWS = [{"instruction": f"Repeat {word}.", "output": " ".join([word] * 40)} for word in ("one", "two", "six") * 8]
PAIRS = [{"instruction": "Say yes.", "chosen": "yes " * 20, "rejected": "no " * 30}] * 8
SIZES = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 8}
"""With 258 tokens 5.2 million parameters."""


def write_model(folder, **sizes):
    """A random model and a tokenizer with a token for each byte."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(bytes_)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>").save_pretrained(folder)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer.get_vocab()), **sizes)).save_pretrained(folder)
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
            "model_name_or_path": "ftk://random/llama", "dataset": str(tmp_path / "rows.json"), "template": "chatml",
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
        {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
        {"finetuning_type": "full", "gradient_accumulation_steps": 2},
        {"finetuning_type": "full", "optim": "adafactor"},
        {"finetuning_type": "full", "use_galore": True, "galore_rank": 8},
        {"finetuning_type": "full", "pure_bf16": True},
        {"finetuning_type": "lora", "stage": "dpo"},
        {"finetuning_type": "full", "stage": "dpo"},
        {"finetuning_type": "lora", "stage": "rm"},
    ],
    ids=lambda settings: "-".join(f"{value}" for value in settings.values()),
)
def test_the_estimate_is_what_the_allocator_gives_out(config, middling, settings):
    """Within 15%; of stages with losses of their own 30%, because their logits are estimated as SFT's."""
    own = settings.get("stage")
    path = config(PAIRS if own else ROWS, model_name_or_path=middling, **settings)
    found = memory_of(path)
    assert found.total == pytest.approx(allocated(path), rel=0.3 if own else 0.15)
    assert found.notes == []
