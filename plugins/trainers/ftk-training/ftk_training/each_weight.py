"""An optimizer that changes each weight by a rule, at the step or as soon as its gradient is there (layerwise).

All that it remembers is in ``state_dict()``: tensors, numbers and text, so that ``torch.load(weights_only=True)`` reads
it and a run goes on from a checkpoint bit for bit. Optimizer plugins bring the rules; :func:`make` brings the rest.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from ftk import CheckpointError, ConfigError
from torch import nn

from ftk_training.matrices import decaying

if TYPE_CHECKING:
    from ftk.run import Run


class Rule(Protocol):
    """How a weight changes. A frozen dataclass; its fields go into checkpoints and must be the same at a resume."""

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Change ``weight`` in place by ``gradient``, both of one shape and type.

        state: what the rule remembers of this weight, empty at first: tensors of any type, numbers, text.
        group: ``lr`` as the schedule has it now, ``betas``, ``eps``, ``weight_decay``.
        """


UNSAVED = {"unsaved": True}
"""Metadata of a rule's field that is no setting: ``field(metadata=UNSAVED)``."""


class Part(NamedTuple):
    """Weights that change by one rule."""

    rule: Rule
    weights: Sequence[nn.Parameter]


class EachWeight(torch.optim.Optimizer):
    """Parts of a model, each with its rule.

    layerwise: update each weight while the gradients of those before it are still being computed, then forget its
        gradient, so that never more than a few gradients exist. ``step()`` then finds nothing left to do, and
        ``take_gradient_norm`` tells what nobody can measure any more.
    """

    def __init__(
        self,
        parts: Iterable[tuple[Part, dict[str, Any]]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        layerwise: bool = False,
    ) -> None:
        parts = list(parts)
        self.rules = {id(weight): part.rule for part, _ in parts for weight in part.weights}
        groups = [{"params": list(part.weights), "rule": _describe(part.rule), **more} for part, more in parts]
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.layerwise = layerwise
        self._squared_norms: list[torch.Tensor] = []
        self._places: dict[int, int] = {}
        if layerwise:
            for weight in self._weights():
                weight.register_post_accumulate_grad_hook(self._update_in_backward)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)
        return loss

    def _update(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        self.rules[id(weight)].update(weight, weight.grad, self.state[weight], group)

    @torch.no_grad()
    def _update_in_backward(self, weight: torch.Tensor) -> None:
        if weight.grad is not None:
            self._squared_norms.append(torch.linalg.vector_norm(weight.grad, dtype=torch.float32).square())
            self._update(weight, self._group_of(weight))
            weight.grad = None

    def _group_of(self, weight: torch.Tensor) -> dict[str, Any]:
        if not self._places:  # no sooner: an adapter may have split the groups, for learning rates of their own
            groups = enumerate(self.param_groups)
            self._places = {id(one): place for place, group in groups for one in group["params"]}
        return self.param_groups[self._places[id(weight)]]

    def _weights(self) -> list[torch.Tensor]:
        return [weight for group in self.param_groups for weight in group["params"]]

    def take_gradient_norm(self) -> torch.Tensor:
        """The norm of all gradients since it was last asked for, of a layerwise optimizer."""
        squares, self._squared_norms = self._squared_norms, []
        return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state, every tensor in the type that it was saved in (torch gives them the weight's).

        Raises CheckpointError when the state was made by other rules, or by rules with other settings.
        """
        self._refuse_other_rules([group.get("rule") for group in state_dict["param_groups"]])
        super().load_state_dict(state_dict)
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        for number, weight in zip(numbers, self._weights(), strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, torch.Tensor):
                    self.state[weight][key] = value.to(weight.device)

    def _refuse_other_rules(self, saved: list[Any]) -> None:
        ours = [group["rule"] for group in self.param_groups]
        if saved != ours:
            before = "; ".join(_shown(rule) for rule in saved if rule not in ours) or f"{len(saved)} groups"
            now = "; ".join(_shown(rule) for rule in ours if rule not in saved) or f"{len(ours)} groups"
            raise CheckpointError(
                f"the checkpoint was made by another optimizer: {before} instead of {now}. Resume with the settings of "
                "that run, or start into another output_dir"
            )


def _describe(value: Any) -> Any:
    """A rule's name and settings as plain values, for checkpoints; fields marked ``metadata=UNSAVED`` are left out."""
    if isinstance(value, tuple | list):
        return [_describe(one) for one in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = [field for field in dataclasses.fields(value) if not field.metadata.get("unsaved")]
    return {"name": type(value).__name__, **{field.name: _describe(getattr(value, field.name)) for field in fields}}


def _shown(rule: dict[str, Any] | None) -> str:
    if rule is None:
        return "one that is not made of rules"
    return f"{rule.get('name')}({', '.join(f'{key}={value}' for key, value in rule.items() if key != 'name')})"


def make(
    run: Run,
    model: nn.Module,
    parts: Iterable[Part],
    *,
    layerwise: str = "",
    kind: Callable[..., EachWeight] = EachWeight,
) -> EachWeight:
    """The optimizer of a run: learning rate, betas, epsilon and weight decay from its training options.

    Weight decay spares what transformers' Trainer spares: biases and norms.
    layerwise: the option that asks for updates within the backward pass, when it is on. kind: what makes the optimizer.
    Raises ConfigError for what cannot be done in that way.
    """
    if layerwise:
        refuse_what_needs_all_gradients(run, layerwise)
    decayed, decay = decaying(model), {"weight_decay": run.value("weight_decay")}
    groups: list[tuple[Part, dict[str, Any]]] = []
    for rule, weights in parts:
        groups.append((Part(rule, [weight for weight in weights if weight in decayed]), decay))
        groups.append((Part(rule, [weight for weight in weights if weight not in decayed]), {"weight_decay": 0.0}))
    return kind(
        [(part, more) for part, more in groups if part.weights],
        lr=run.value("learning_rate"),
        betas=(run.value("adam_beta1"), run.value("adam_beta2")),
        eps=run.value("adam_epsilon"),
        layerwise=bool(layerwise),
    )


def refuse_what_needs_all_gradients(run: Run, option: str) -> None:
    """What an option for updates within the backward pass cannot say as data; accumulation and fp16 it can.

    Raises ConfigError.
    """
    if "max_grad_norm" in run.plan.given and run.value("max_grad_norm"):
        raise ConfigError(
            f"{run.plan.where('max_grad_norm')}: gradients cannot be scaled to a common norm with {option}, which "
            f"never has all of them. Set max_grad_norm: 0, or {option}: false"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"{run.plan.where(option)}: several processes average their gradients after the backward pass, in which "
            f"{option} has used them already. Start one process, or set it to false"
        )
