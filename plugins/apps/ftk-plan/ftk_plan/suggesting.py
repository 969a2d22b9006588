"""What to change in a run that does not fit, tried one by one on tensors without contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ftk import FtkError
from ftk.plan import Plan

from ftk_plan.changing import changed, value
from ftk_plan.memory import Memory, estimate
from ftk_plan.rows import Rows, look_at

Change = Callable[[Plan], Mapping[str, Any]]


def _smaller_batch(plan: Plan) -> Mapping[str, Any]:
    batch = value(plan, "per_device_train_batch_size")
    steps = value(plan, "gradient_accumulation_steps")
    return {"per_device_train_batch_size": 1, "gradient_accumulation_steps": steps * batch} if batch > 1 else {}


def _shorter(plan: Plan) -> Mapping[str, Any]:
    return {"cutoff_len": value(plan, "cutoff_len") // 2} if value(plan, "cutoff_len") else {}


CHANGES: tuple[tuple[Change, str], ...] = (
    (lambda plan: {"gradient_checkpointing": True}, "the same result, about a third slower"),
    (_smaller_batch, "the same result, slower"),
    (lambda plan: {"bf16": True}, "computes in 16 bits"),
    (lambda plan: {"precompute_ref_log_probs": True}, "the same result, one more pass before"),
    (lambda plan: {"optim": "adafactor"}, "another optimizer"),
    (lambda plan: {"pure_bf16": True, "bf16": False}, "coarser steps"),
    (lambda plan: {"finetuning_type": "lora"}, "fewer weights learn"),
    (lambda plan: {"quantization_bit": 4}, "a rounded base model"),
    (_shorter, "longer rows are cut"),
)
"""Settings and what they cost, those first that change the result least. What a run cannot do is left out."""


class Suggestion(NamedTuple):
    """settings: what to write. saves: bytes. fits: whether the run would then."""

    settings: Mapping[str, Any]
    cost: str
    saves: int
    fits: bool


def suggestions(plan: Plan, words: Sequence[str], rows: Rows, found: Memory, room: int) -> Iterator[Suggestion]:
    """The changes that save something, in order. room: bytes for tensors."""
    for change, cost in CHANGES:
        settings = {key: one for key, one in change(plan).items() if key in plan.registry.options}
        if not settings or all(value(plan, key) == one for key, one in settings.items()):
            continue
        try:
            other = changed(plan, words, settings)
            if _notes(other) != _notes(plan):
                continue  # a key of it has no effect in this run
            added = [f"--{key}={str(one).lower()}" for key, one in settings.items()]
            cut = rows if "cutoff_len" not in settings else look_at(other, [*words, *added], 200)
            total = estimate(other, [*words, *added], cut).total
        except FtkError:
            continue
        if total < found.total * 0.98:
            yield Suggestion(settings, cost, found.total - total, total <= room)


def _notes(plan: Plan) -> int:
    return sum("no effect" in note for note in plan.notes)
