"""Which of transformers' auto classes loads a model, and what turns its media into tensors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PreTrainedTokenizerBase,
)

log = logging.getLogger("ftk.hf")

AUTO_CLASSES = (AutoModelForCausalLM, AutoModelForMultimodalLM, AutoModelForImageTextToText)
"""In the order in which they are tried. Models of the third are models of the second, apart from remote code."""


def auto_class(config: Any) -> Any:
    """The auto class for a model's config, None when the model writes no text after text.

    Some configs fit two, of which one loads the language model alone; then the files decide: ``architectures`` names
    the class that they were saved from.
    """
    fitting = [auto for auto in AUTO_CLASSES if type(config) in auto._model_mapping or _is_remote(config, auto)]
    for auto in fitting:
        if set(getattr(config, "architectures", None) or ()) & _class_names(auto, config.model_type):
            return auto
    if fitting and fitting[0] is not AutoModelForCausalLM and config.is_encoder_decoder:
        return None
    return fitting[0] if fitting else None


def _is_remote(config: Any, auto: Any) -> bool:
    return auto.__name__ in (getattr(config, "auto_map", None) or {})


def _class_names(auto: Any, model_type: str) -> set[str]:
    """By name, because asking for the class imports its module."""
    found = auto._model_mapping._model_mapping.get(model_type, ())
    return {found} if isinstance(found, str) else set(found)


def takes_media(config: Any) -> bool:
    """Whether models of this config see or hear."""
    return type(config) in AutoModelForMultimodalLM._model_mapping or "AutoProcessor" in (
        getattr(config, "auto_map", None) or {}
    )


def load_processor(name: str, access: Mapping[str, Any]) -> Any:
    """The processor of a model, only its image part when the rest needs packages that are not installed, else None."""
    from transformers import AutoImageProcessor, AutoProcessor

    try:
        found = AutoProcessor.from_pretrained(name, **access)
    except ImportError as cause:  # processors for video want torchvision, also where there are images only
        log.info("%s: the image processor alone: %s", name, " ".join(str(cause).split()))
        found = AutoImageProcessor.from_pretrained(name, **access)
    return None if isinstance(found, PreTrainedTokenizerBase) else found
