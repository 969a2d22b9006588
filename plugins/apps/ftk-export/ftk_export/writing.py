"""A folder that ``from_pretrained`` reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ftk import CheckpointError, ConfigError
from ftk_data import renderer
from ftk_training import value_head

from ftk_export import ExportFormat, ExportOptions

if TYPE_CHECKING:
    from ftk.run import Run


def write(model: Any, folder: Path, run: Run) -> None:
    """Weights in shards of ``export_size``, and what belongs to them."""
    model.save_pretrained(folder, max_shard_size=f"{run.options(ExportOptions).export_size}GB")
    write_companions(model, folder, run)


def write_companions(model: Any, folder: Path, run: Run) -> None:
    """Tokenizer, processor, chat template, generation config and value head, as they were in training."""
    template, tokenizer = renderer(run), run.tokenizer
    tokenizer.chat_template = template.jinja()
    if run.processor is not None:
        run.processor.chat_template = tokenizer.chat_template
    (run.processor or tokenizer).save_pretrained(folder)
    generation = model.generation_config
    if generation is not None:
        generation.eos_token_id = stop_ids(template, tokenizer, generation)
        generation.pad_token_id = tokenizer.pad_token_id
        generation.save_pretrained(folder)
    if head := value_head_of(run):
        shutil.copyfile(head, folder / value_head.FILE)


def stop_ids(template: Any, tokenizer: Any, generation: Any) -> list[int] | int | None:
    """The tokens that end an answer: the tokenizer's, the model's own and the template's."""
    own = generation.eos_token_id if generation is not None else None
    added = tokenizer.get_added_vocab()
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    ends |= {added[stop] for stop in template.stop if stop in added}
    found = sorted(ends - {None})
    return found[0] if len(found) == 1 else found or None


def value_head_of(run: Run) -> Path | None:
    """The file of the value head that was trained with the model or its last adapter."""
    folders = [*run.value("adapter_name_or_path"), run.value("model_name_or_path")]
    for folder in reversed(folders[:-1] or folders):
        if (path := Path(str(folder)) / value_head.FILE).is_file():
            return path
    return None


def check_target(run: Run) -> Path:
    """Where the export goes. Raises ConfigError for a folder that holds something."""
    options = run.options(ExportOptions)
    if options.export_legacy_format:
        raise ConfigError(
            f"{run.plan.where('export_legacy_format')}: .bin files are pickles, which run code when they are loaded. "
            "Take it out"
        )
    _check_bits(run, options)
    if not options.export_dir:
        raise ConfigError("export_dir: not set. Say --export_dir FOLDER")
    target = Path(options.export_dir).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{run.plan.where('export_dir')}: {target} holds something. Choose another folder")
    return target


def _check_bits(run: Run, options: ExportOptions) -> None:
    """Refuse a number of bits that the format cannot do, and one that looks at texts without any."""
    form, bits = cast("ExportFormat", run.plan.one("export_format")), options.export_quantization_bit
    where = run.plan.where("export_quantization_bit")
    if bits and not form.bits:
        few = "Choose export_format: gptq, bnb or another of few bits (ftk plugins list), or take it out"
        raise ConfigError(f"{where}: {bits}: the format {form.name} keeps all bits. {few}")
    if bits and bits not in form.bits:
        raise ConfigError(f"{where}: {bits}: {form.name} can do {', '.join(map(str, form.bits))}")
    if form.calibrated and not options.export_quantization_dataset:
        give = "Give export_quantization_dataset: a file or the name of a data set"
        raise ConfigError(f"{where}: {form.name} looks at texts while it rounds. {give}")


def check_room(model: Any, target: Path, form: ExportFormat) -> int:
    """The bytes that the export takes. Raises CheckpointError when the disk has no room for them."""
    sizes = {id(one): one.numel() * one.element_size() for one in model.parameters()}
    needed = int(sum(sizes.values()) * form.size / 2) + 50_000_000
    folder = next(one for one in (target, *target.resolve().parents) if one.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(
            f"{target}: the export takes about {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free. Make room "
            "or choose another export_dir"
        )
    return needed
