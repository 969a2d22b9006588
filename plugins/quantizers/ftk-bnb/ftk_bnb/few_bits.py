"""What transformers is told of bitsandbytes, which itself (seconds) is imported by the load."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import BitsAndBytesConfig

from ftk_bnb import BnbOptions

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.bnb")
NOISY = "bitsandbytes.autograd._functions"
"""Warns at every product that LLM.int8 rounds what comes in to float16 first."""


def configure(run: Run) -> BitsAndBytesConfig:
    """Eight bits: LLM.int8, whose outlying activations stay in sixteen. Four: nf4 or fp4 in blocks of 64 weights.

    FSDP splits only what has one type, so that four bits are then kept in the type of the computation.
    """
    if run.value("quantization_bit") == 8:
        _say_once()
        return BitsAndBytesConfig(load_in_8bit=True)
    options, dtype = run.options(BnbOptions), compute_dtype(run)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.quantization_type,
        bnb_4bit_use_double_quant=options.double_quantization,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if _value(run, "fsdp") else torch.uint8,
    )


def adjust(run: Run, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a stored model, computing in the type of this run instead of that of the run that stored it."""
    if not stored.get("load_in_4bit"):
        _say_once()
        return dict(stored)
    return {**stored, "bnb_4bit_compute_dtype": str(compute_dtype(run)).removeprefix("torch.")}


def _say_once() -> None:
    logging.getLogger(NOISY).setLevel(logging.ERROR)
    log.info("LLM.int8 rounds what comes into a quantised layer to float16, then to 8 bits")


def compute_dtype(run: Run) -> torch.dtype:
    """The type of the products with dequantised weights: as the run says, else the one the model is stored in."""
    if run.plan.one("trainer") is not None:
        if _value(run, "bf16") or _value(run, "pure_bf16"):
            return torch.bfloat16
        if _value(run, "fp16"):
            return torch.float16
    elif (said := _value(run, "infer_dtype") or "auto") != "auto":
        return getattr(torch, said)
    stored = getattr(run.model_config, "dtype", None)
    return stored if stored in (torch.bfloat16, torch.float16) else torch.float32


def _value(run: Run, key: str) -> Any:
    """An option that another plugin owns, None where it is not installed."""
    return run.value(key) if key in run.plan.registry.options else None
