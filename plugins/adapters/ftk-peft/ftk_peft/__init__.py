"""What adapters share, on top of peft. A library plugin: options, and the kind of feature that a variant of LoRA is.

An adapter is a config: ``ftk_peft.applying.apply(model, run, trainable, config_of)`` loads, merges and goes on with
saved adapters, whatever they are, and makes a new one from what ``config_of`` returns. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import ftk

__all__ = ["BASE", "LoraVariant", "NamedAdapterOptions", "PeftOptions"]

BASE = "changed_base"
"""Folder in the run directory of a base model that a variant has changed."""


@ftk.options
class PeftOptions:
    """Which adapters are there already, and what learns beside the new one."""

    additional_target: tuple[str, ...] = ftk.option(
        (), help="Modules that learn as a whole and are saved with the adapter, for instance embed_tokens,lm_head."
    )
    create_new_adapter: bool = ftk.option(
        False, help="Merge every adapter of adapter_name_or_path and train a new one instead of the last.",
        needs=("adapter_name_or_path",), excludes=("quantizer",),
    )  # fmt: skip
    adapter_folder: str | None = ftk.option(
        None, help="Folder inside of each adapter_name_or_path that holds the adapter.", needs=("adapter_name_or_path",)
    )


@ftk.options
class NamedAdapterOptions:
    """Adapters beside the model that answers; engines that can switch between them carry this class."""

    lora_modules: Mapping[str, str] | None = ftk.option(
        None, help="Adapters that answer when a request names them, name to folder: `{french: saves/french}`."
    )


@dataclass(frozen=True, eq=False, repr=False)
class LoraVariant(ftk.Spec):
    """Something that changes LoRA. Takes part when its ``switch`` is on, several at a time.

    config_target: ``change(config, run) -> config``, peft's ``LoraConfig`` of a new adapter.
    target: ``change(model, run, new) -> model``, when the adapter that learns is there; ``new`` is False for one that
        was saved before. Learning rates and a form for saving are set there (``ftk_training.learning``).
    """

    kind: ClassVar[str] = "lora_variant"
    config_target: str | None = None


@ftk.hookimpl
def ftk_kinds() -> Iterator[ftk.Kind]:
    yield ftk.Kind(LoraVariant, "ftk_lora_variants", many=True, within="adapter:lora")
