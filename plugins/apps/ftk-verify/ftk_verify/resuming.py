"""Whether a run that goes on from a checkpoint does what the uninterrupted one did."""

from __future__ import annotations

from typing import Any

from ftk_training.checks import NotApplicable, Outcome

from ftk_verify.bench import Bench, apart
from ftk_verify.sizes import refuse_small_disk

STEPS, SAVED = 4, 2


def resumed_equals_uninterrupted(bench: Bench) -> Outcome:
    """Four steps, and the last two of them again from the checkpoint of the second; dropout and all as in the run."""
    known = bench.plan.registry.options
    for key in ("save_only_model", "ignore_data_skip"):
        if key in known and bench.plan.value(key):
            raise NotApplicable(f"{key}: true gives that up")
    grouped = bench.examples_kind == "prompts"  # their answers come in groups of a given size
    sizes = {key: bench.plan.value(key) if grouped else min(2, bench.plan.value(key)) for key in BATCH if key in known}
    settings: dict[str, Any] = {
        "steps": STEPS, "num_rows": 12, "save_strategy": "steps", "save_steps": SAVED, "save_total_limit": None,
        **sizes,
    }  # fmt: skip
    whole = bench.train(prepare=lambda model: refuse_small_disk(model, bench.folder), **settings)
    checkpoint = whole.folder / f"checkpoint-{SAVED}"
    if not checkpoint.is_dir():
        return Outcome(False, f"there is no checkpoint after step {SAVED}", f"{bench.tolerance:.0e}")
    resumed = bench.train(**settings, resume_from_checkpoint=str(checkpoint))
    pairs = list(zip(resumed.losses, whole.losses[SAVED:], strict=False))
    if len(pairs) < STEPS - SAVED:
        return Outcome(False, f"{len(pairs)} steps were logged after the resume, {STEPS - SAVED} should be")
    losses = max(abs(one - other) / max(abs(other), 1e-12) for one, other in pairs)
    weights = apart(resumed.weights, whole.weights)
    lines = tuple(
        f"step {number}: loss {other:.6f}, resumed {one:.6f}" for number, (one, other) in enumerate(pairs, SAVED + 1)
    )
    said = f"steps {SAVED + 1} to {STEPS}: losses {losses:.1e} apart, weights {weights:.1e}"
    return Outcome(max(losses, weights) <= bench.tolerance, said, f"{bench.tolerance:.0e}", lines)


BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")
