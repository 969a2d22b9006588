"""The form in which PiSSA is saved.

What learns sits on a model without its largest singular values, which nobody else has. With the initial A0 and B0 the
change is s (B A - B0 A0), a plain LoRA of twice the rank for the original model (PiSSA, appendix C): A over A0, and B
beside -B0. Every checkpoint has that form, whatever ``pissa_convert``: anybody can use it, and because A and B are half
of it, a run goes on from it bit for bit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ftk import CheckpointError
from ftk_peft.making import read_config, write_config
from ftk_peft.saving import point_to_base
from ftk_peft.terms import Factors, terms_of
from ftk_training.quick_imports import quick_imports
from safetensors.torch import load_file, save_file

with quick_imports():
    from peft import set_peft_model_state_dict

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.pissa")

WEIGHTS = "adapter_model.safetensors"


class Converting:
    """Saves a plain LoRA, and takes one apart again. ``initial``: name of a matrix → its A0 and B0."""

    def __init__(self, run: Run, initial: Mapping[str, Factors], convert: bool) -> None:
        self.run = run
        self.initial = dict(initial)
        self.convert = convert

    def rewrite(self, model: Any, folder: Path, *, checkpoint: bool) -> None:
        """Make a plain LoRA of what was just saved; a result without ``pissa_convert`` gets its model beside it."""
        if not (checkpoint or self.convert):
            point_to_base(model, self.run, folder)
            return
        weights = load_file(folder / WEIGHTS)
        for name, (a, b) in self.initial.items():
            key_a, key_b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
            weights[key_a] = torch.cat([weights[key_a], a.to(weights[key_a])]).contiguous()
            weights[key_b] = torch.cat([weights[key_b], -b.to(weights[key_b])], dim=1).contiguous()
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        config = read_config(folder)
        stretch = math.sqrt(2) if config.get("use_rslora") else 2
        write_config(folder, {**config, "r": 2 * config["r"], "lora_alpha": stretch * config["lora_alpha"]})

    def restore(self, model: Any, folder: Path) -> None:
        """A and B of a checkpoint into the model. Where its A0 and B0 are others than this run's, the matrices follow.

        The decomposition is repeatable on one machine with the same libraries, not across them.
        Raises CheckpointError for a checkpoint without them.
        """
        weights, terms, moved = load_file(folder / WEIGHTS), terms_of(model), 0
        for name, ours in self.initial.items():
            key_a, key_b, rank = f"{name}.lora_A.weight", f"{name}.lora_B.weight", ours.a.shape[0]
            if key_a not in weights or weights[key_a].shape[0] != 2 * rank:
                raise CheckpointError(f"{folder}: {name} has no PiSSA term of rank {rank}. Begin anew")
            theirs = Factors(weights[key_a][rank:], -weights[key_b][:, rank:])
            weights[key_a], weights[key_b] = weights[key_a][:rank], weights[key_b][:, :rank]
            if not (torch.equal(theirs.a, ours.a) and torch.equal(theirs.b, ours.b)):
                moved += 1
                terms[name].add(1, ours)
                terms[name].add(-1, theirs)
                self.initial[name] = theirs
        if moved:
            log.warning("%s: %d matrices were decomposed otherwise here; its own factors are used", folder, moved)
        set_peft_model_state_dict(model, weights)
