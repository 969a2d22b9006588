"""Tokenizers and models through Unsloth's ``FastLanguageModel``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError, ModelError, Tokens
from transformers import AutoConfig, AutoTokenizer

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.unsloth")


def load_tokenizer(run: Run) -> Tokens:
    """The tokenizer, with a padding token whatever the model brings.

    Raises ModelError when there is none, and for a model that sees or hears.
    """
    where = run.plan.where("model_name_or_path")
    access = {key: value for key, value in _access(run).items() if key != "token" or value}
    try:
        config = AutoConfig.from_pretrained(_path(run), **access)
        tokenizer = AutoTokenizer.from_pretrained(_path(run), **access)
    except (OSError, ValueError) as cause:
        raise ModelError(f"{where}: Unsloth loads folders and hub names: {_in_a_line(cause)}") from cause
    if getattr(config, "vision_config", None) or getattr(config, "audio_config", None):
        raise ModelError(f"{where}: {config.model_type} models see or hear. Take use_unsloth out")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return Tokens(tokenizer, None, config.model_type)


def load_model(run: Run) -> Any:
    """The model as Unsloth makes it, quantised to 4 bits when the run says so.

    Raises ModelError for what Unsloth does not load, ConfigError for a quantization that is not its own.
    """
    from unsloth import FastLanguageModel

    bits, training = _value(run, "quantization_bit"), run.plan.one("trainer") is not None
    if bits not in (None, 4):
        raise ConfigError(f"{run.plan.where('quantization_bit')}: Unsloth quantises to 4 bits. Set it to 4")
    adapter = run.plan.one("adapter")
    try:
        model, _ = FastLanguageModel.from_pretrained(
            _path(run),
            max_seq_length=_value(run, "cutoff_len"),
            dtype=_dtype(run),
            load_in_4bit=bits == 4,
            full_finetuning=training and getattr(adapter, "saves", "") == "model",
            use_gradient_checkpointing=False,  # ftk-training sees to it
            **_access(run),
        )
    except (OSError, ValueError, RuntimeError, NotImplementedError, KeyError) as cause:
        raise ModelError(f"{run.plan.where('model_name_or_path')}: Unsloth: {_in_a_line(cause)}") from cause
    if not training:
        FastLanguageModel.for_inference(model)
    return model


def speed_up(model: Any, run: Run, new: bool) -> Any:
    """The model with Unsloth's kernels around its LoRA terms. The CPU fallback has none, and some models have none."""
    from unsloth import FastLanguageModel

    if not hasattr(FastLanguageModel, "patch_peft_model"):
        log.info("Unsloth has no kernels for LoRA on this device")
        return model
    try:
        return FastLanguageModel.patch_peft_model(model, use_gradient_checkpointing=False)
    except NotImplementedError as cause:
        log.info("Unsloth has no kernels for this model's LoRA: %s", _in_a_line(cause))
        return model


def _path(run: Run) -> str:
    """A folder or hub name; what another loader brings to a folder (``ftk://...``) is brought."""
    name = run.model_path
    for spec in run.plan.registry.specs("model_loader").values():
        if "://" in name and name.partition("://")[0] in getattr(spec, "schemes", ()) and getattr(spec, "locate", None):
            return str(spec.load("locate")(name, run))
    return name


def _access(run: Run) -> dict[str, Any]:
    keys = {
        "trust_remote_code": "trust_remote_code", "model_revision": "revision", "hf_hub_token": "token",
        "cache_dir": "cache_dir",
    }  # fmt: skip
    return {theirs: _value(run, key) for key, theirs in keys.items()}


def _dtype(run: Run) -> torch.dtype:
    """The type of the frozen weights, and of all of them with ``pure_bf16``."""
    if _value(run, "bf16") or _value(run, "pure_bf16"):
        return torch.bfloat16
    return torch.float16 if _value(run, "fp16") else torch.float32


def _value(run: Run, key: str) -> Any:
    """An option of another plugin, None where it is not installed."""
    return run.value(key) if key in run.plan.registry.options else None


def _in_a_line(cause: Exception) -> str:
    return " ".join(str(cause).split())[:300]
