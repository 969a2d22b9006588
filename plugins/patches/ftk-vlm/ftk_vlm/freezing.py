"""Tells adapters which parts of a model stay as they are (:mod:`ftk_training.learning`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ftk.options import fields_of
from ftk_training.learning import free, keep
from ftk_training.parts import parts_of

from ftk_vlm import VlmOptions

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.vlm")


def hold(model: Any, run: Run) -> Any:
    """The model, with what is to be frozen kept and not learning.

    A tower or projector that is not to be frozen is freed, so that LoRA's ``all`` goes there, too. The language model
    needs no word: adapters go there unasked. Left alone are models without these parts, and those that only answer.
    """
    if run.plan.one("trainer") is None:
        return model
    parts, options = parts_of(model), run.options(VlmOptions)
    if not any(parts):
        for key in fields_of(VlmOptions):
            if key in run.plan.given:
                log.warning("%s has no effect, the model only reads text", run.plan.where(key))
        return model
    if not options.freeze_vision_tower:
        free(run, parts.towers, "freeze_vision_tower: false")
    if not options.freeze_multi_modal_projector:
        free(run, parts.projector, "freeze_multi_modal_projector: false")
    _keep(model, run, parts.towers, "freeze_vision_tower", options.freeze_vision_tower)
    _keep(model, run, parts.projector, "freeze_multi_modal_projector", options.freeze_multi_modal_projector)
    _keep(model, run, parts.language, "freeze_language_model", options.freeze_language_model)
    return model


def _keep(model: Any, run: Run, names: tuple[str, ...], key: str, frozen: bool) -> None:
    if not frozen:
        return
    keep(run, names, f"{key}: true")
    tops = [f"{name}." for name in names]
    for name, parameter in model.named_parameters():
        if name in names or name.startswith(tuple(tops)):
            parameter.requires_grad_(False)
