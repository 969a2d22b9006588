"""What transformers finds out too late, said in one line: after the first evaluation, or at the first upload.

``ftk run --rehearse`` comes to the same lines before anything has been trained.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ftk import ConfigError
from ftk.errors import did_you_mean

from ftk_training.options import TrainingOptions

if TYPE_CHECKING:
    from ftk.run import Run


def check_push(run: Run) -> None:
    """Raise ConfigError for ``push_to_hub`` where no token is known."""
    from huggingface_hub import get_token

    options = run.options(TrainingOptions)
    if options.push_to_hub and not (options.hub_token or get_token()):
        raise ConfigError(
            f"{run.plan.where('push_to_hub')}: there is no token for the hub. Set hub_token or HF_TOKEN, or type "
            "hf auth login"
        )


def check_best_metric(run: Run, name: str | None, found: Collection[str]) -> None:
    """Raise ConfigError when an evaluation has no metric of the name by which the best checkpoint is chosen."""
    names = {one.removeprefix("eval_") for one in found}
    if name is None or name.removeprefix("eval_") in names:
        return
    key = "metric_for_best_model"
    where = run.plan.where(key) if key in run.plan.given else f"{run.plan.config}: {key}: {name}"
    there = ", ".join(sorted(one for one in names if not one.endswith(("_per_second", "runtime", "epoch"))))
    raise ConfigError(f"{where}: the evaluation has no such metric.{did_you_mean(name, names)} There is {there}")
