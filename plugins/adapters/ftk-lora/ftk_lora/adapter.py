"""The terms of a run: which modules get one, and what variants make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ftk_peft.applying import apply as apply_adapter

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_peft import LoraVariant

TELLING = {"lora_rank": "r", "lora_alpha": "lora_alpha", "use_rslora": "use_rslora"}
"""Keys whose values an adapter that goes on may contradict, and peft's name of each."""


def apply(model: Any, run: Run, trainable: bool) -> Any:
    """The model with its adapters, see :func:`ftk_peft.applying.apply`; variants then change the one that learns."""
    model = apply_adapter(model, run, trainable, _config)
    if not trainable:
        return model
    made = run.once("ftk_lora.new", lambda: False)
    if not made:
        from ftk_peft.making import tell_unused

        tell_unused(model.active_peft_config, run, TELLING)
    for variant in variants(run):
        if variant.target:
            model = variant.load()(model, run, made)
    return model


def variants(run: Run) -> tuple[LoraVariant, ...]:
    """The variants that take part, in the order of the YAML."""
    return cast("tuple[LoraVariant, ...]", run.plan.chosen.get("lora_variant", ()))


def _config(model: Any, run: Run) -> Any:
    from ftk_lora.config import make_config

    config = make_config(model, run)
    for variant in variants(run):
        if variant.config_target:
            config = variant.load("config_target")(config, run)
    run.once("ftk_lora.new", lambda: True)
    return config
