"""peft's config of a new LoRA adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftk import ModelError
from ftk_peft.targets import additional_modules, find_targets, ties, token_rows
from ftk_training.quick_imports import quick_imports

from ftk_lora import LoraOptions

with quick_imports():
    from peft import LoraConfig

if TYPE_CHECKING:
    from ftk.run import Run


def make_config(model: Any, run: Run) -> LoraConfig:
    """The config that the options describe for this model. A new adapter changes nothing yet: B is zero.

    Embeddings and output layer that share a weight learn as one. Tokens that the run has added learn, too.
    Raises ModelError when a module that is to learn is not there, or cannot have a low-rank term.
    """
    options = run.options(LoraOptions)
    targets = find_targets(model, options.lora_target, run, "lora_target")
    if targets.parameters and options.lora_dropout:
        raise ModelError(
            f"{run.plan.where('lora_dropout')}: experts that share a parameter cannot have dropout. Set it to 0, or "
            f"name the layers without {', '.join(targets.parameters)} in lora_target"
        )
    if ties(model, targets.modules):
        raise ModelError(
            f"{run.plan.where('lora_target')}: embeddings and output layer share a weight, so a term beside one would "
            "be merged into both. Name it in additional_target"
        )
    whole = additional_modules(model, run)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=options.lora_rank,
        lora_alpha=2 * options.lora_rank if options.lora_alpha is None else options.lora_alpha,
        lora_dropout=options.lora_dropout,
        use_rslora=options.use_rslora,
        target_modules=targets.modules,
        exclude_modules=targets.excluded,
        target_parameters=targets.parameters or None,
        modules_to_save=whole or None,
        fan_in_fan_out=targets.transposed,
        trainable_token_indices=token_rows(model, run, whole) or None,
        ensure_weight_tying=ties(model, whole),
    )
