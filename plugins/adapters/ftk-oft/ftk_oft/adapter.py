"""The rotations of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftk import ConfigError, ModelError
from ftk_peft.applying import apply as apply_adapter

from ftk_oft import OftOptions

if TYPE_CHECKING:
    from ftk.run import Run

TELLING = {"oft_rank": "r", "oft_block_size": "oft_block_size"}
"""Keys whose values an adapter that goes on may contradict, and peft's name of each."""


def apply(model: Any, run: Run, trainable: bool) -> Any:
    """The model with its adapters, see :func:`ftk_peft.applying.apply`."""
    model = apply_adapter(model, run, trainable, _config)
    if trainable and run.value("adapter_name_or_path"):
        from ftk_peft.making import tell_unused

        tell_unused(model.active_peft_config, run, TELLING)
    return model


def _config(model: Any, run: Run) -> Any:
    """peft's config. A new adapter changes nothing yet: its rotations are the identity.

    Raises ConfigError when both sizes are given, ModelError when a module that is to learn is not there.
    """
    from ftk_peft.targets import additional_modules, find_targets, ties, token_rows
    from ftk_training.quick_imports import quick_imports

    with quick_imports():
        from peft import OFTConfig

    options = run.options(OftOptions)
    if options.oft_rank and options.oft_block_size and "oft_block_size" in run.plan.given:
        raise ConfigError(f"{run.plan.where('oft_rank')}: oft_block_size says the same. Take one out")
    targets = find_targets(model, options.oft_target, run, "oft_target", experts=False)
    whole = additional_modules(model, run)
    whole += token_rows(model, run, whole)  # OFT cannot let single rows learn
    if ties(model, [*whole, *targets.modules]):
        key = "additional_target" if ties(model, whole) else "oft_target"
        raise ModelError(
            f"{run.plan.where(key)}: the output layer shares its weight with the embeddings, and OFT cannot let those "
            "learn together. Take them out, and new tokens, or take finetuning_type: lora"
        )
    return OFTConfig(
        task_type="CAUSAL_LM",
        r=options.oft_rank,
        oft_block_size=0 if options.oft_rank else options.oft_block_size,
        module_dropout=options.module_dropout,
        target_modules=targets.modules,
        exclude_modules=targets.excluded,
        modules_to_save=whole or None,
        fan_in_fan_out=targets.transposed,
    )
