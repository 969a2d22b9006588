"""Curves. References: the pixels of a picture for what is drawn, and averages written out for what is smoothed."""

import math
from pathlib import Path

import pytest
from ftk_training import plot
from matplotlib import image


def lines(count=40, **more):
    made = [
        {"step": step, "loss": 2 / step, "grad_norm": 1.0, "accuracy": step / 40, **more} for step in range(1, count)
    ]
    return [*made, {"step": count, "eval_loss": 0.3, "eval_accuracy": 0.9, "eval_runtime": 2.0}]


def test_losses_are_one_picture_and_every_other_metric_has_a_panel(tmp_path):
    plot.draw_losses(lines(), tmp_path / "loss.png")
    assert plot.metric_names(lines(reward=1.0)) == ["accuracy", "reward"]
    assert plot.draw_metrics(lines(), tmp_path / "one.png")
    assert plot.draw_metrics(lines(reward=1.0, margin=2.0), tmp_path / "three.png")
    sizes = {name: image.imread(tmp_path / f"{name}.png").shape[:2] for name in ("loss", "one", "three")}
    assert sizes == {"loss": (540, 960), "one": (540, 960), "three": (720, 1320)}


def test_a_run_that_measured_its_loss_alone_leaves_no_second_picture(tmp_path):
    assert not plot.draw_metrics([{"step": 1, "loss": 2.0, "learning_rate": 1.0}], tmp_path / "metrics.png")
    assert not Path(tmp_path / "metrics.png").exists()
    plot.draw_losses([{"step": 1, "loss": 2.0}], tmp_path / "loss.png")
    plot.draw_losses([], tmp_path / "empty.png")


def test_smoothing_takes_noise_and_spikes_and_keeps_the_level():
    assert plot.smoothed([1.0, 2.0, 4.0]) == [1.0, 2.0, 4.0]
    noisy = [2 + (-1) ** number * 0.5 for number in range(100)]
    assert all(abs(value - 2) < 0.3 for value in plot.smoothed(noisy)[5:-5])
    spiked = [1.0] * 50 + [100.0] + [1.0] * 50
    assert plot.smoothed(spiked) == pytest.approx([1.0] * 101)


def test_smoothing_does_not_lag_behind_a_loss_that_falls():
    falling = [math.exp(-number / 30) for number in range(100)]
    found = plot.smoothed(falling)
    assert max(abs(one - other) for one, other in zip(found[10:-10], falling[10:-10], strict=True)) < 0.02


def test_a_spike_leaves_the_picture_instead_of_pressing_the_curve_flat(tmp_path):
    """The curve goes over most of the height of the picture whether there is a spike or not."""

    def height_of_curve(spike):
        given = [{"step": step, "loss": 2 - step / 60} for step in range(100)]
        given[50]["loss"] = spike
        plot.draw_losses(given, tmp_path / "loss.png")
        blue = image.imread(tmp_path / "loss.png")[:, 300:600]
        rows = ((blue[..., 2] - blue[..., 0]) > 0.5).any(axis=1).nonzero()[0]
        return rows.max() - rows.min()

    assert height_of_curve(1000.0) > 0.8 * height_of_curve(1.2) > 50
