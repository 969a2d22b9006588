"""``training_loss.png`` from ``trainer_log.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_losses(lines: Sequence[Mapping[str, float]], path: Path) -> None:
    """The losses of training, as logged and smoothed, and of evaluations, over optimizer steps."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    train = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    axes.plot(*zip(*train, strict=True), color="tab:blue", alpha=0.3, label="training")
    axes.plot([step for step, _ in train], smoothed([loss for _, loss in train]), color="tab:blue", label="smoothed")
    for name in sorted({key for line in lines for key in line if key.startswith("eval_") and key.endswith("loss")}):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving average over about a tenth of the values, corrected for its start (as Adam's moments are)."""
    weight = 1 - 1 / max(len(values) / 10, 1)
    means, mean, total = [], 0.0, 0.0
    for value in values:
        mean, total = weight * mean + (1 - weight) * value, weight * total + (1 - weight)
        means.append(mean / total)
    return means
