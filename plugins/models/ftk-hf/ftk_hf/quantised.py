"""Models in few bits: quantised while they are loaded, or stored that way."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from ftk import ConfigError

from ftk_hf.choosing import auto_class, takes_media

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk.specs import Quantizer

log = logging.getLogger("ftk.hf")

FEW = 0.2
"""Weights that stay large are worth a warning from this share of a quantised model's bytes on."""


SPARED = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")
"""How transformers' quantization configs call the list of modules that stay as they are."""


def quantization(run: Run, config: Any) -> tuple[Any, Any]:
    """(config of a model that is stored quantised, config by which ``from_pretrained`` quantises); None where not.

    Asked before anything is read, so that a missing back end, a missing GPU or a combination that cannot be is said
    first. Raises FtkError.
    """

    def ask() -> tuple[Any, Any]:
        stored = stored_in(config)
        if stored is not None:
            _compare_bits(run, stored)
            stored = _spared_anywhere(run.stored_quantization(stored))
        _check_device(run)
        return stored, None if stored is not None else _spare(run.quantization_config(), config)

    return run.once("ftk_hf.quantization", ask)


def _spare(quantising: Any, config: Any) -> Any:
    """Quantise the language model alone where a model sees or hears: towers are small, and worse for it.

    The output layer, which every quantiser spares by itself, has to be named with them.
    """
    key = next((one for one in SPARED if getattr(quantising, one, "") is None), None)
    if key is None or not takes_media(config):
        return quantising
    with torch.device("meta"):
        model = auto_class(config).from_config(config)
    language = model.get_decoder() if hasattr(model, "get_decoder") else None
    if language is not None and language is not model:
        setattr(quantising, key, list(_beside(model, language)))
    return quantising


def _beside(module: torch.nn.Module, language: torch.nn.Module, prefix: str = "") -> Iterator[str]:
    """Full names of the largest modules that hold nothing of the language model."""
    for name, child in module.named_children():
        if child is not language and any(one is language for one in child.modules()):
            yield from _beside(child, language, f"{prefix}{name}.")
        elif child is not language:
            yield prefix + name


def _spared_anywhere(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what it spares found below other modules, too.

    Files name ``visual``, which in transformers 5 is ``model.visual``; names are compared from their start on.
    """
    found = dict(stored)
    for key in SPARED:
        if names := found.get(key):
            found[key] = [*names, *(rf".*\.{name}(\.|$)" for name in names)]
    return found


def as_stored(run: Run, stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored config as it is: transformers finds out what it needs, and says so."""
    return stored


def stored_in(config: Any) -> dict[str, Any] | None:
    """What a model's config says of the way in which its files are quantised."""
    for one in (config, config.get_text_config(decoder=True)):
        if found := getattr(one, "quantization_config", None):
            return dict(found) if isinstance(found, Mapping) else cast("dict[str, Any]", found.to_dict())
    return None


def bits_of(stored: Mapping[str, Any]) -> int | None:
    """The bits of a stored model, None when its config does not say so in one number."""
    for bits in (4, 8):
        if stored.get(f"load_in_{bits}bit"):
            return bits
    grouped = (stored.get("quant_config") or {}).get("weight_quant_params") or {}  # HQQ
    if isinstance(number := stored.get("bits", grouped.get("nbits")), int):
        return number
    named = re.fullmatch(r"int(\d)", str(stored.get("weights")))  # quanto
    return int(named[1]) if named else None


def _compare_bits(run: Run, stored: Mapping[str, Any]) -> None:
    wanted, bits = run.value("quantization_bit"), bits_of(stored)
    if wanted is None:
        return
    where = run.plan.where("quantization_bit")
    has = f"the model's files are quantised already ({stored.get('quant_method')}{f', {bits} bits' if bits else ''})"
    if bits is not None and bits != wanted:
        raise ConfigError(f"{where}: {has}. Take quantization_bit out, or take other files")
    log.warning("%s has no effect: %s", where, has)


def _check_device(run: Run) -> None:
    spec = cast("Quantizer | None", run.plan.one("quantizer"))
    if spec is None or not spec.gpu:
        return
    if own_device(run) == "cpu":
        why = "torch finds none" if not torch.accelerator.is_available() else "use_cpu is set"
        raise ConfigError(f"{run.plan.where('model_name_or_path')}: {spec.id} needs a GPU, and {why}")


def own_device(run: Run) -> str:
    """The device of this process, as training will have it: one accelerator, or the CPU."""
    idle = "use_cpu" in run.plan.registry.options and run.value("use_cpu")
    found = None if idle else torch.accelerator.current_accelerator(check_available=True)
    return f"{found.type}:{os.environ.get('LOCAL_RANK', 0)}" if found else "cpu"


def report(model: Any, name: str) -> None:
    """Say how large a quantised model is, and warn when much of it is not quantised at all.

    Quantisers take linear layers. A mixture of experts keeps its experts in parameters of three dimensions, which none
    of them touches; they stay in the type that they are loaded in.
    """
    total, plain, embeddings = 0, 0, 0
    largest: dict[str, int] = {}
    outer = {id(one.weight) for one in _ends(model) if getattr(one, "weight", None) is not None}
    for key, value in [*model.named_parameters(), *model.named_buffers()]:
        size = value.numel() * value.element_size()
        total += size
        if value.ndim < 2 or not value.is_floating_point() or type(value.data) is not torch.Tensor:
            continue
        if id(value) in outer:
            embeddings += size
        elif _is_whole(model, key):
            plain += size
            last = ".".join(key.split(".")[-2:])
            largest[last] = largest.get(last, 0) + size
    log.info("%s: %s MB, %s MB of it embeddings", name, f"{total / 1e6:,.1f}", f"{embeddings / 1e6:,.1f}")
    if plain > FEW * total:
        names = ", ".join(sorted(largest, key=lambda one: -largest[one])[:4])
        log.warning("%s: %.0f%% of its bytes are not quantised: %s", name, 100 * plain / total, names)


def _ends(model: Any) -> list[Any]:
    return [one for one in (model.get_input_embeddings(), model.get_output_embeddings()) if one is not None]


def _is_whole(model: Any, key: str) -> bool:
    """Whether a tensor is a weight of its own; scales and code books belong to modules that call themselves linear."""
    owner = model.get_submodule(key.rpartition(".")[0])
    return isinstance(owner, torch.nn.Linear | torch.nn.Conv2d) or "Linear" not in type(owner).__name__
