"""The auxiliary loss of a mixture of experts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import MethodType
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run

KEY, FIELD = "moe_aux_loss_coef", "router_aux_loss_coef"


@ftk.options
class MoeOptions:
    """How much the balance of the experts counts."""

    moe_aux_loss_coef: float | None = ftk.option(
        None, help="Weight of the loss that keeps experts in balance; unset trains without it.", minimum=0
    )


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    yield ftk.ModelPatch(
        "moe",
        config_target="ftk_moe:set_weight",
        target="ftk_moe:turn_on",
        options=MoeOptions,
        switch=KEY,
        summary="The loss that keeps the experts of a mixture in balance",
    )


def set_weight(config: Any, run: Run) -> Any:
    """The config with the weight. Raises ConfigError, before loading, for a family without such a loss."""
    if run.plan.one("trainer") is not None:
        text = config.get_text_config()
        if not hasattr(text, FIELD):
            raise ftk.ConfigError(f"{run.plan.where(KEY)}: {config.model_type} has no loss for experts. Take it out")
        setattr(text, FIELD, run.options(MoeOptions).moe_aux_loss_coef)
    return config


def turn_on(model: Any, run: Run) -> Any:
    """The model, which computes its auxiliary loss while it trains and whenever it computes a loss.

    A family whose config has the weight but whose model does nothing with it raises ModelError at the first loss.
    """
    if run.plan.one("trainer") is None:
        return model
    own, where = model.forward.__func__, run.plan.where(KEY)
    names = list(inspect.signature(own).parameters)[1:]

    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        call = dict(zip(names, arguments, strict=False)) | named
        if not self.training and call.get("labels") is None and call.get("shift_labels") is None:
            return own(self, *arguments, **named)
        call.setdefault("output_router_logits", True)
        outputs = own(self, **call)
        if call["output_router_logits"] and outputs.get("aux_loss") is None:
            raise ftk.ModelError(
                f"{where}: transformers has no loss for the experts of {self.config.model_type}. Take it out"
            )
        return outputs

    forward.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]  # trainers ask what it takes
    model.forward = MethodType(forward, model)
    return model
