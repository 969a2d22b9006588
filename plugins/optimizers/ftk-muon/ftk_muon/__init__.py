"""Muon: matrices move by their orthogonalised momentum, everything else by AdamW (Jordan et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.options
class MuonOptions:
    """The switch."""

    use_muon: bool = ftk.option(
        False, help="Train matrices with Muon; embeddings, output layer, norms and biases with AdamW."
    )


@ftk.hookimpl
def ftk_optimizers() -> Iterator[ftk.Optimizer]:
    yield ftk.Optimizer(
        "muon",
        target="ftk_muon.optimizer:build",
        options=MuonOptions,
        switch="use_muon",
        reads=("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
        excludes=("deepspeed", "fsdp"),
        summary="Orthogonalised momentum for matrices, AdamW for the rest",
    )
