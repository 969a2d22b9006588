"""``ftk export``: what was trained as one folder that other programs load, and the kind of feature that a format is.

A format of another plugin is a :class:`ExportFormat`, declared with the hook ``ftk_export_formats``. The folder is
filled aside, opened again, compared with the model that was trained, and only then put in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import ftk
from ftk_data import TemplateOptions

__all__ = ["ExportFormat", "ExportOptions"]


@ftk.options
class ExportOptions:
    """Where the folder goes, in which form, and how it is checked."""

    export_dir: str | None = ftk.option(None, help="Folder of the export; it must not exist or be empty.")
    export_format: str | None = ftk.option(None, help="safetensors, or another installed format such as gguf.")
    export_size: int = ftk.option(5, help="Most gigabytes of one file of weights.", minimum=1)
    export_device: Literal["cpu", "auto"] = ftk.option(
        "cpu", help="Where adapters are merged; auto takes accelerators."
    )
    export_dtype: Literal["auto", "float16", "bfloat16", "float32"] = ftk.option(
        "auto", help="Type of the exported weights; auto is the model's own."
    )
    export_quantization_bit: int | None = ftk.option(
        None, help="Export in this many bits; without export_format that is gptq.", minimum=1
    )
    export_quantization_dataset: str | None = ftk.option(
        None, help="Texts that weights are rounded by, for formats that look at some: a data set's name or a file."
    )
    export_quantization_nsamples: int = ftk.option(128, help="How many of these texts are taken.", minimum=1)
    export_quantization_maxlen: int = ftk.option(1024, help="Tokens of each of these texts.", minimum=1)
    export_modelfile: bool = ftk.option(True, help="Write an Ollama Modelfile beside the weights.")
    export_hub_model_id: str | None = ftk.option(
        None, help="Repository on the hub that the export is sent to; unset is none."
    )
    export_verify: bool = ftk.option(True, help="Open the export again and compare it with the trained model.")
    export_tolerance: float | None = ftk.option(
        None, help="How far logits may be apart, as a share; unset is what the format states.", above=0
    )
    export_legacy_format: bool = ftk.option(
        False, help="Not possible: .bin files are pickles, which run code when loaded."
    )


@dataclass(frozen=True, eq=False, repr=False)
class ExportFormat(ftk.Spec):
    """A form in which models leave. Target: ``write(model, folder, run)``, which fills an empty folder.

    model: with plain weights, adapters merged, on the CPU or where ``export_device`` says, in the type that
        ``export_dtype`` asks for. Beside the weights the folder gets tokenizer, chat template and generation
        config, by :func:`ftk_export.writing.write_companions`, unless the format holds them itself.
    opens: ``"module:attr"`` of ``open(folder, run, model) -> Opened`` (:mod:`ftk_export.gate`), which reads the folder
        without the weights of ``model``, the one that was written; unset reads it with transformers.
    size: bytes on the disk for each weight of 16 bits, at most, to ask for room before anything is written.
    tolerance: how far the logits of what was read back may be from the trained model's, as a share of their norm.
    bits: the values of ``export_quantization_bit`` that it can do; none when it rounds nothing, and then that key is
        refused. A format that it is chosen by has it as its ``switch``.
    calibrated: it looks at texts, :func:`ftk_export.calibration.texts`, and needs ``export_quantization_dataset``.
    modelfile: what an Ollama Modelfile says behind FROM, "." for the folder; None where Ollama cannot load it.
    """

    kind: ClassVar[str] = "export_format"
    opens: str | None = None
    size: float = 2.0
    tolerance: float = 1e-4
    bits: tuple[int, ...] = ()
    calibrated: bool = False
    modelfile: str | None = None


@ftk.hookimpl
def ftk_kinds() -> Iterator[ftk.Kind]:
    yield ftk.Kind(
        ExportFormat,
        "ftk_export_formats",
        selector="export_format",
        within="command:export",
        required=True,
        prefix="export-",
    )


@ftk.hookimpl
def ftk_export_formats() -> Iterator[ExportFormat]:
    yield ExportFormat(
        "safetensors",
        target="ftk_export.writing:write",
        default=True,
        modelfile=".",
        summary="The folder that transformers, vLLM, SGLang and most others load",
    )


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "export",
        target="ftk_export.command:export",
        options=(ExportOptions, TemplateOptions),
        uses=("model_loader", "model_patch", "adapter", "template", "media"),  # the base's plan has the quantizer
        reads=("hf_hub_token",),
        summary="Merge adapters and write one folder that other programs load.",
    )
