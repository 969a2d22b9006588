"""Which weights of a run may learn, how fast, and in which form they are saved: what patches and adapters agree on.

A patch that wants parts of a model left alone says so with :func:`keep`, before the adapter; the adapter asks
:func:`why_kept`, lets nothing there learn and puts nothing beside it. Names are those of the model as it was loaded.
An adapter that wants other learning rates for some of its weights says so with :func:`set_rates`, one that is not saved
the way it learns with :func:`set_form`; what is saved in a file of its own is told of with :func:`add_companion`. The
trainer honours all three, at a resume too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from ftk import ConfigError, ModelError

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.training")

Rates = Callable[[str, torch.nn.Parameter], "float | None"]
"""``rates(name, parameter) -> highest learning rate`` of a weight that learns; None leaves it at ``learning_rate``."""


class Form(Protocol):
    """How an adapter is saved that is not what ``save_pretrained`` writes."""

    def rewrite(self, model: Any, folder: Path, *, checkpoint: bool) -> None:
        """Change what ``save_pretrained`` has just written into ``folder``, a checkpoint or the result of the run."""

    def restore(self, model: Any, folder: Path) -> None:
        """Put the weights of a checkpoint back into the model that learns. Raises CheckpointError."""


class Companion(Protocol):
    """Weights that learn with the model and are saved in a file of their own beside it, like a value head.

    Their names stand in the model's ``_keys_to_ignore_on_save``.
    """

    def save(self, model: Any, folder: Path, state_dict: Mapping[str, torch.Tensor] | None) -> None:
        """Write them into a checkpoint or the result. state_dict: all weights, of a model that is spread."""

    def restore(self, model: Any, folder: Path) -> None:
        """Put those of a checkpoint back into the model. Raises CheckpointError."""

    def parameters(self, model: Any) -> list[torch.nn.Parameter]:
        """Those that learn, in every step, whatever else an optimizer leaves out in some."""


@dataclass
class Learning:
    """What has been said. ``kept`` and ``freed``: full name of a module or parameter → who said it."""

    kept: dict[str, str] = field(default_factory=dict)
    freed: dict[str, str] = field(default_factory=dict)
    rates: list[Rates] = field(default_factory=list)
    form: Form | None = None
    companions: list[Companion] = field(default_factory=list)


def of(run: Run) -> Learning:
    """What has been said in this run."""
    return run.once("ftk_training.learning", Learning)


def keep(run: Run, names: Iterable[str], why: str) -> None:
    """Modules or parameters, with all beneath them, that stay as they are. ``why``: ``freeze_vision_tower: true``."""
    of(run).kept |= dict.fromkeys(names, why)


def free(run: Run, names: Iterable[str], why: str) -> None:
    """Modules or parameters that shall learn where an adapter would leave them out unasked, like a vision tower.

    The longer name wins: a layer can be freed in a tower that is kept.
    """
    of(run).freed |= dict.fromkeys(names, why)


def why_kept(run: Run, name: str) -> str:
    """Who said that a module or parameter stays as it is; empty when it may learn."""
    said = of(run)
    kept, freed = _longest(said.kept, name), _longest(said.freed, name)
    return said.kept[kept] if kept is not None and len(kept) >= len(freed or "") else ""


def is_freed(run: Run, name: str) -> bool:
    """Whether somebody asked for a module or parameter to learn."""
    return _longest(of(run).freed, name) is not None and not why_kept(run, name)


def _longest(said: Iterable[str], name: str) -> str | None:
    around = [one for one in said if name == one or name.startswith(one + ".")]
    return max(around, key=len, default=None)


def set_rates(run: Run, rates: Rates) -> None:
    """Learning rates of an adapter's own, see :data:`Rates`; of several rules the first one that answers counts."""
    of(run).rates.append(rates)


def set_form(run: Run, form: Form) -> None:
    """A form of an adapter's own. Raises ConfigError when another feature has set one."""
    if of(run).form is not None:
        names = " and ".join(sorted(type(one).__module__.partition(".")[0] for one in (of(run).form, form)))
        raise ConfigError(f"{run.plan.config}: {names} both save an adapter in a form of their own. Take one out")
    of(run).form = form


def add_companion(run: Run, companion: Companion) -> None:
    """Let weights that have a file of their own be saved and restored with the model."""
    of(run).companions.append(companion)


def companions_of(run: Run, model: Any) -> list[torch.nn.Parameter]:
    """What learns of all that was told of with :func:`add_companion`."""
    return [weight for companion in of(run).companions for weight in companion.parameters(model)]


def split_rates(run: Run, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer a group for each learning rate that :func:`set_rates` asks for.

    Works with every optimizer whose groups hold the parameters: each group is split, its other settings go with all of
    its parts. The order depends on the model alone, so a resumed run has the groups of its checkpoint.
    Raises ConfigError for an optimizer that has no such groups.
    """
    rules = of(run).rates
    if not rules:
        return
    wanted: dict[int, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            answers = (rule(name, parameter) for rule in rules)
            if (rate := next((one for one in answers if one is not None), None)) is not None:
                wanted[id(parameter)] = rate
    parts = []
    for group in optimizer.param_groups:
        rates = {id(one): wanted.get(id(one), group["lr"]) for one in group["params"]}
        for rate in dict.fromkeys([group["lr"], *sorted(rates.values())]):
            params = [one for one in group["params"] if rates[id(one)] == rate]
            parts += [{**group, "params": params, "lr": rate}] if params else []
    placed = {id(one) for group in parts for one in group["params"]}
    if not placed >= wanted.keys():
        raise ConfigError(
            f"{run.plan.config}: {type(optimizer).__name__} keeps its weights to itself, so they cannot have learning "
            "rates of their own. Take another optim"
        )
    optimizer.param_groups[:] = parts
    log.info("learning rates: %s", ", ".join(f"{group['lr']:.2e}" for group in parts))


def settle(model: torch.nn.Module, run: Run, where: str) -> None:
    """Make what learns float32, so that small steps are not rounded away (``pure_bf16`` leaves it), and count it.

    Raises ModelError that begins with ``where`` when nothing learns, or when the rest of the model could not compute
    with it: without mixed precision all weights have one type.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learning:
        raise ModelError(f"{where}: no weight is left that learns")
    for parameter in learning:
        if parameter.dtype == torch.float32 or value(run, "pure_bf16"):
            continue
        if not (value(run, "bf16") or value(run, "fp16")):
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise ModelError(f"{where}: learns in float32, the rest of the model computes in {dtype}. Set bf16: true")
        parameter.data = parameter.data.float()
    count, total = sum(one.numel() for one in learning), sum(one.numel() for one in model.parameters())
    log.info("%s of %s parameters learn (%.2f%%)", f"{count:,}", f"{total:,}", 100 * count / total)


def value(run: Run, key: str) -> Any:
    """An option that another plugin owns, None where it is not installed."""
    return run.value(key) if key in run.plan.registry.options else None
