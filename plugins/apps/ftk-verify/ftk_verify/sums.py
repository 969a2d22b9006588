"""Whether the loss of a step depends on how its rows are put into batches."""

from __future__ import annotations

from typing import Any

from ftk import FtkError
from ftk_training.checks import NotApplicable, Outcome, Trained

from ftk_verify.bench import UNPACKED, Bench, apart

STILL: dict[str, Any] = {"still": True, "steps": 1, "max_grad_norm": 0, "learning_rate": 0.0}
ALL = 1000
"""More batches than there are rows, so that one step takes them all."""


def accumulation_equals_batch(bench: Bench) -> Outcome:
    """Rows in one batch, two by two, and one by one, each as one step."""
    refuse_prompts(bench)
    known = bench.plan.registry.options
    most = 4 if "per_device_train_batch_size" in known and bench.plan.value("per_device_train_batch_size") > 1 else 2
    num_rows = len(bench.rows(most))
    if num_rows < 2:
        raise NotApplicable("there is only one row")
    lines, shares = [], []
    whole: Trained | None = None
    for size in dict.fromkeys((num_rows, -(-num_rows // 2), 1)):
        parts = -(-num_rows // size)
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts}
        try:
            trained = bench.train(num_rows=most, **sizes, **UNPACKED, **STILL)
        except FtkError as error:
            if whole is None:
                raise
            raise NotApplicable(f"the run refuses to accumulate: {' '.join(str(error).split())}") from error
        whole = whole or trained
        lines.append(f"{parts} of {size}: loss {trained.losses[0]:.6f}")
        shares.append(differences(trained, whole))
    return judged(bench, f"{num_rows} rows", shares, tuple(lines))


def packed_equals_unpacked(bench: Bench) -> Outcome:
    """Rows together as the run packs them, and each in a row of its own, all of them as one step."""
    refuse_prompts(bench)
    known = bench.plan.registry.options
    asked = [key for key in ("packing", "neat_packing", "padding_free") if key in known and bench.plan.value(key)]
    if not asked:
        raise NotApplicable("the run neither packs nor is padding_free")
    as_asked = {key: bench.plan.value(key) for key in UNPACKED if key in known}
    rows = bench.rows(8, **as_asked)
    if "padding_free" not in asked and not getattr(rows, "packed", False):
        raise NotApplicable("this stage does not keep the texts of a row apart, and is not meant to")
    size = min(4, bench.plan.value("per_device_train_batch_size"))
    together = bench.train(
        num_rows=8, per_device_train_batch_size=size, gradient_accumulation_steps=ALL, **as_asked, **STILL
    )
    alone = bench.train(
        num_rows=8, per_device_train_batch_size=1, gradient_accumulation_steps=ALL, padding_free=False, **UNPACKED,
        **STILL,
    )  # fmt: skip
    lines = (f"together: loss {together.losses[0]:.6f}", f"alone: loss {alone.losses[0]:.6f}")
    return judged(bench, f"{len(rows)} rows", [differences(together, alone)], lines)


def refuse_prompts(bench: Bench) -> None:
    """Raise NotApplicable for stages whose rows are only asked and answered by the model itself."""
    if bench.examples_kind == "prompts":
        raise NotApplicable("what this stage learns from is sampled while it trains, so no two steps are alike")


def differences(found: Trained, wanted: Trained) -> tuple[float, float | None]:
    """Of the loss and of the gradients, as shares; None where the optimizer uses gradients up in the backward pass."""
    if not found.losses or not wanted.losses:
        raise NotApplicable("the stage reports no loss")
    loss = abs(found.losses[0] - wanted.losses[0]) / max(abs(wanted.losses[0]), 1e-12)
    return loss, apart(found.gradients, wanted.gradients) if found.gradients and wanted.gradients else None


def judged(bench: Bench, what: str, shares: list[tuple[float, float | None]], lines: tuple[str, ...]) -> Outcome:
    loss = max(share for share, _ in shares)
    gradients = [share for _, share in shares if share is not None]
    worst = max([loss, *gradients])
    said = f"{what}: loss {loss:.1e} apart, gradients {f'{max(gradients):.1e}' if gradients else 'not seen'}"
    return Outcome(worst <= bench.tolerance, said, f"{bench.tolerance:.0e}", lines)
