"""The optimizers: one layer at a time, or a part of each weight at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError
from ftk_training import each_weight
from ftk_training.adamw import AdamW
from ftk_training.each_weight import EachWeight, Part
from ftk_training.learning import companions_of
from ftk_training.matrices import ends, learning
from torch import nn

from ftk_badam import BadamOptions
from ftk_badam.schedule import Schedule, entries

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.badam")
STEPS = "num_steps"
INTERVAL = 100
"""Steps that a part of the weights learns in mode ratio, as in badam 1.4."""
WHOLE = 100
"""Weights with fewer values learn as a whole in mode ratio, as in badam 1.4."""


@dataclass(frozen=True)
class InFloat32:
    """AdamW on a float32 copy of a weight of fewer bits, so that small steps are not rounded away."""

    inner: AdamW = field(default_factory=AdamW)

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if weight.dtype == torch.float32:
            self.inner.update(weight, gradient, state, group)
            return
        if "weight" not in state:
            state["weight"] = weight.float()
        self.inner.update(state["weight"], gradient.float(), state, group)
        weight.copy_(state["weight"])


@dataclass(frozen=True)
class PartOfEach:
    """AdamW on some values of a weight, others after every 100 steps, with new moments each time."""

    ratio: float
    mode: str
    seed: int
    inner: InFloat32 = field(default_factory=InFloat32)

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        steps = state.get(STEPS, 0)
        if steps % INTERVAL == 0:
            state.clear()
        state[STEPS] = steps + 1
        numel = weight.numel()
        count = numel if numel < WHOLE else max(int(numel * self.ratio), 1)
        chosen = entries(numel, count, steps // INTERVAL * count % numel, self.mode, self.seed, weight.device)
        values = weight.flatten()[chosen]
        self.inner.update(values, gradient.flatten()[chosen], state, group)
        weight.view(-1)[chosen] = values


class OneBlock(EachWeight):
    """One of several blocks learns at a time; the others need no gradient and have no state."""

    def __init__(
        self,
        *arguments: Any,
        blocks: Sequence[Sequence[nn.Parameter]],
        schedule: Schedule,
        told: Callable[[int], None],
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self.blocks, self.schedule, self.told = blocks, schedule, told
        self.param_groups[0][STEPS] = 0
        self.active = -1
        self._activate()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update the block that learns, and go on to the next one when it is its turn."""
        loss = super().step(closure)
        steps = self.param_groups[0][STEPS]
        self.param_groups[0][STEPS] = steps + 1
        if self.schedule.switches(steps + 1) != self.schedule.switches(steps):
            for weight in self.blocks[self.active]:
                self.state.pop(weight, None)  # also when the next block is the same one
            self._activate()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._activate()

    def _activate(self) -> None:
        now = self.schedule.block(self.param_groups[0][STEPS])
        for weights in self.blocks:
            for weight in weights:
                weight.requires_grad_(False)
                weight.grad = None
        for weight in self.blocks[now]:
            weight.requires_grad_(True)
        if now != self.active:
            self.told(now)
        self.active = now


def build(model: nn.Module, run: Run) -> EachWeight:
    """BAdam over the layers of the model; embeddings, output layer and what else stands outside of layers stay, but for
    a value head, which learns with every layer.

    Raises ConfigError when the model has no layers that learn, and for a first layer that is not there.
    """
    options = run.options(BadamOptions)
    layers = layers_of(model)
    if not layers:
        raise ConfigError(f"{run.plan.where('use_badam')}: no layer of the model learns. Take finetuning_type: full")
    make = _one_part_of_each if options.badam_mode == "ratio" else _one_layer_at_a_time
    return make(model, run, layers)


def check(run: Run) -> None:
    """Refuse layers in turn with several processes, which would average gradients of the first one only.

    Raises ConfigError.
    """
    if run.options(BadamOptions).badam_mode == "layer" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"{run.plan.where('use_badam')}: layers in turn need one process; several would average the gradients "
            "of the first layer only. Start one, or set badam_mode: ratio"
        )


build.check = check  # type: ignore[attr-defined]


def _one_part_of_each(model: nn.Module, run: Run, _: object) -> EachWeight:
    options = run.options(BadamOptions)
    kept = [weight for weight in learning(model) if id(weight) not in {id(one) for one in ends(model)}]
    model.requires_grad_(False)
    for weight in kept:
        weight.requires_grad_(True)
    rule = PartOfEach(options.badam_update_ratio, options.badam_mask_mode, run.seed)
    return each_weight.make(run, model, [Part(rule, kept)])


def _one_layer_at_a_time(model: nn.Module, run: Run, layers: dict[str, list[nn.Parameter]]) -> EachWeight:
    options = run.options(BadamOptions)
    start = options.badam_start_block
    if start is not None and start >= len(layers):
        raise ConfigError(
            f"{run.plan.where('badam_start_block')}: the last of the {len(layers)} layers is {len(layers) - 1}"
        )
    schedule = Schedule(len(layers), options.badam_switch_interval, options.badam_switch_mode, start, run.seed)

    always = companions_of(run, model)  # a value head, without which no layer has a gradient of any use
    model.requires_grad_(False)
    blocks = [[*weights, *always] for weights in layers.values()]
    everything = [*(weight for weights in layers.values() for weight in weights), *always]
    told = partial(_tell, list(layers), blocks, options.badam_verbose)
    kind = partial(OneBlock, blocks=blocks, schedule=schedule, told=told)
    return each_weight.make(run, model, [Part(InFloat32(), everything)], kind=kind)


def _tell(names: list[str], blocks: list[list[nn.Parameter]], verbose: int, number: int) -> None:
    if verbose == 1:
        log.info("%s learns now", names[number])
    elif verbose > 1:
        log.info("%s learns now, %s values", names[number], f"{sum(weight.numel() for weight in blocks[number]):,}")


def layers_of(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Name of a layer → its weights that learn. Layers are what outermost lists of modules hold."""
    found: dict[str, list[nn.Parameter]] = {}
    lists: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{outer}.") for outer in lists):
            continue
        lists.append(name)
        for number, layer in enumerate(module):
            if weights := learning(layer):
                found[f"{name}.{number}"] = weights
    return found
