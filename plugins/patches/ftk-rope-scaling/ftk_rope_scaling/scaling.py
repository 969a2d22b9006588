"""Rotary positions scaled in a model's config; transformers computes the frequencies from it.

linear: positions divided by the factor (Chen et al. 2023, arXiv:2306.15595, sec. 2.3). dynamic: a base that grows with
the length (NTK-aware, "Dynamically Scaled RoPE", 2023). yarn: Peng et al. 2023, arXiv:2309.00071, sec. 3.2 to 3.4.
llama3: frequencies scaled by band, as Llama 3.1 was released.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from ftk import ModelError

from ftk_rope_scaling import RopeScalingOptions

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.rope-scaling")

FIELDS: dict[str, dict[str, Any]] = {
    "linear": {},
    "dynamic": {},
    "yarn": {},
    "llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0},  # Llama 3.1's config.json
}
"""Formula → what its parameters hold beside the factor."""

HOLDS_ORIGINAL = ("yarn", "llama3")
"""Formulas whose parameters name the original context; for those the model's own becomes the longer one."""

OF_SCALING = frozenset(
    {"rope_type", "type", "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor",
     "attention_factor", "beta_fast", "beta_slow", "short_factor", "long_factor", "truncate", "mscale",
     "mscale_all_dim"}
)  # fmt: skip
"""What belongs to one formula; all else (theta, the rotated share, sections of multimodal positions) stays."""

WINDOWED = ("sliding", "chunked")
"""How transformers names kinds of layers that see only what is near; their positions stay as they are."""


def scale(config: Any, run: Run) -> Any:
    """The config with the scaling that the run asks for; as it was, with a word, where the context suffices.

    The factor is relative to the context that the model was made for, so applying it to a saved result changes nothing.
    Raises ModelError for a model without rotary positions.
    """
    options, text = run.options(RopeScalingOptions), config.get_text_config()
    parameters = getattr(text, "rope_parameters", None)
    where = run.plan.where("rope_scaling")
    if not parameters or not getattr(text, "max_position_embeddings", None):
        raise ModelError(f"{where}: {text.model_type} models have no rotary positions. Leave rope_scaling out")
    length = run.value("cutoff_len") if "cutoff_len" in run.plan.registry.options else 0
    for part in _global_parts(text, parameters):
        original = _original(text, part)
        factor = options.rope_scaling_factor or math.ceil(length / original)
        reach = _reach(text, part)
        if not options.rope_scaling_factor and length <= reach:
            log.warning("%s: has no effect: cutoff_len %d fits the model's context of %d", where, length, reach)
            continue
        if part.get("rope_type") == options.rope_scaling and part.get("factor") == factor:
            continue
        _write(text, part, str(options.rope_scaling), float(factor), original)
        log.info("rope_scaling: %s, %d tokens × %g", options.rope_scaling, original, factor)
    return config


def _global_parts(text: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameters of all layers that see everything: one dictionary, or one for each kind of layer."""
    kinds = text.nested_rope_parameter_keys(parameters)
    if not kinds:
        return [parameters]
    return [parameters[kind] for kind in kinds if parameters[kind] and not kind.startswith(WINDOWED)]


def _original(text: Any, part: dict[str, Any]) -> int:
    """Tokens of the context that the model was made for, before any scaling."""
    if said := part.get("original_max_position_embeddings"):
        return int(said)
    factor = part.get("factor") or 1
    return int(text.max_position_embeddings / factor) if part.get("rope_type") == "linear" else _tokens(text)


def _reach(text: Any, part: dict[str, Any]) -> int:
    """Tokens that the config reaches as it is. Dynamic scaling leaves the model's own number where it was."""
    dynamic = part.get("rope_type") == "dynamic"
    return int(_tokens(text) * part.get("factor", 1)) if dynamic else _tokens(text)


def _tokens(text: Any) -> int:
    return int(text.max_position_embeddings)


def _write(text: Any, part: dict[str, Any], formula: str, factor: float, original: int) -> None:
    kept = {key: value for key, value in part.items() if key not in OF_SCALING}
    part.clear()
    part |= {**kept, "rope_type": formula, "factor": factor, **FIELDS[formula]}
    if formula in HOLDS_ORIGINAL:
        part["original_max_position_embeddings"] = original
    # dynamic: transformers takes max_position_embeddings as the original context of the formula
    text.max_position_embeddings = original if formula == "dynamic" else int(original * factor)
