"""Curves of a run, or of several, from the lines of ``trainer_log.jsonl``.

``training_loss.png`` has the losses, ``training_metrics.png`` everything else that was measured, a panel for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Lines = Sequence[Mapping[str, float]]

ABOUT_THE_RUN = frozenset(
    {"step", "total_steps", "loss", "epoch", "seconds", "learning_rate", "grad_norm", "num_tokens",
     "num_trained_tokens", "tokens_per_second", "num_input_tokens_seen", "train_tokens_per_second"}
)  # fmt: skip
UNPLOTTED = ("_loss", "_runtime", "_per_second", "_perplexity")
"""Ends of the names of numbers that are drawn elsewhere, or say nothing about the model."""
TRAINING, EVALUATION = "#1f6fb4", "#d8572a"
OTHERS = ("#1f6fb4", "#d8572a", "#3a923a", "#8457a3", "#946254", "#c9478f", "#6b6b6b", "#9a9a1c", "#1899a8", "#2f3e8f")


def draw_losses(lines: Lines, path: Path) -> None:
    """The losses of training, as logged and smoothed, and of evaluations, over optimizer steps."""
    figure, (axes,) = _figure(1)
    train = points(lines, "loss")
    if train:
        steps, losses = zip(*train, strict=True)
        means = smoothed(losses)
        axes.plot(steps, losses, color=TRAINING, alpha=0.25, linewidth=1, marker=_marker(steps), label="training")
        axes.plot(steps, means, color=TRAINING, linewidth=2, label="training, smoothed")
        _leave_out_spikes(axes, losses, means, [value for name in _losses(lines) for _, value in points(lines, name)])
    for number, name in enumerate(_losses(lines)):
        found = points(lines, name)
        label = "evaluation" if name == "eval_loss" else name
        axes.plot(*zip(*found, strict=True), color=OTHERS[1 + number % 9], linewidth=1.5, marker="o", label=label)
    _finish(figure, axes, "loss")
    figure.savefig(path)


def draw_metrics(lines: Lines, path: Path) -> bool:
    """A panel for each metric of training and evaluations but the loss; False when there is none."""
    names = metric_names(lines)
    if not names:
        return False
    figure, panels = _figure(len(names))
    for name, axes in zip(names, panels, strict=True):
        for key, color, label in ((name, TRAINING, "training"), (f"eval_{name}", EVALUATION, "evaluation")):
            if found := points(lines, key):
                steps, values = zip(*found, strict=True)
                crowded = len(values) > 30
                axes.plot(
                    steps,
                    values,
                    color=color,
                    alpha=0.25 if crowded else 1,
                    marker=None if crowded else "o",
                    markersize=3,
                )
                axes.plot(steps, smoothed(values) if crowded else values, color=color, linewidth=1.5, label=label)
        _finish(figure, axes, name.replace("_", " "))
    figure.savefig(path)
    return True


def draw_runs(runs: Mapping[str, Lines], path: Path, metric: str = "loss") -> None:
    """One metric of several runs, by their names, over optimizer steps; smoothed where it was logged often."""
    figure, (axes,) = _figure(1)
    drawn, raw, shown = 0, list[float](), list[float]()
    for name, lines in runs.items():
        if not (found := points(lines, metric)):
            continue
        steps, values = zip(*found, strict=True)
        means = smoothed(values) if len(values) > 10 else list(values)
        color, style = OTHERS[drawn % 10], ("-", "--", ":")[drawn // 10 % 3]
        axes.plot(steps, values, color=color, alpha=0.15, linewidth=1)
        axes.plot(steps, means, color=color, linestyle=style, linewidth=2, marker=_marker(steps), label=name)
        drawn, raw, shown = drawn + 1, [*raw, *values], [*shown, *means]
    if metric.endswith("loss"):
        _leave_out_spikes(axes, raw, shown, [])
    _finish(figure, axes, metric.replace("_", " "))
    figure.savefig(path)


def metric_names(lines: Lines) -> list[str]:
    """What was measured beside the loss, without ``eval_`` before it."""
    keys = {key for line in lines for key, value in line.items() if isinstance(value, (int, float))}
    found = {key.removeprefix("eval_") for key in keys - ABOUT_THE_RUN if not key.endswith(UNPLOTTED)}
    return sorted(name for name in found if any(points(lines, key) for key in (name, f"eval_{name}")))


def points(lines: Lines, key: str) -> list[tuple[float, float]]:
    """(step, value) of the lines that have one."""
    return [(line["step"], line[key]) for line in lines if isinstance(line.get(key), (int, float)) and "step" in line]


def smoothed(values: Sequence[float]) -> list[float]:
    """A curve without noise and single spikes: medians of five neighbours, then means that look both ways.

    The means are exponential moving averages over about a twentieth of the values in each direction, corrected for
    their start (as Adam's moments are); one direction alone would lag behind a loss that falls.
    """
    if len(values) >= 20:
        values = [median(values[max(place - 2, 0) : place + 3]) for place in range(len(values))]
    forward, backward = _averages(values), _averages(values[::-1])[::-1]
    return [(one + other) / 2 for one, other in zip(forward, backward, strict=True)]


def _averages(values: Sequence[float]) -> list[float]:
    weight = 1 - 1 / max(len(values) / 20, 1)
    means, mean, total = [], 0.0, 0.0
    for value in values:
        mean, total = weight * mean + (1 - weight) * value, weight * total + (1 - weight)
        means.append(mean / total)
    return means


def _losses(lines: Lines) -> list[str]:
    return sorted({key for line in lines for key in line if key.startswith("eval_") and key.endswith("loss")})


def _figure(count: int) -> tuple[Figure, list[Axes]]:
    columns = 1 if count == 1 else 2
    rows = -(-count // columns)
    size = (8, 4.5) if count == 1 else (11, 3 * rows)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def _leave_out_spikes(axes: Axes, values: Sequence[float], means: Sequence[float], others: Sequence[float]) -> None:
    """Let single values leave the picture at the top where they would press everything else flat."""
    if len(values) < 20:
        return
    ordered = sorted(values)
    top = max(ordered[int(0.98 * (len(ordered) - 1))], *means, *others)
    bottom = min(ordered[0], *others) if others else ordered[0]
    margin = 0.06 * ((top - bottom) or 1)
    axes.set_ylim(bottom - margin, top + margin)


def _marker(steps: Sequence[Any]) -> str | None:
    return "o" if len(steps) < 3 else None


def _finish(figure: Figure, axes: Axes, title: str) -> None:
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if axes.lines:
        axes.legend(frameon=False)
