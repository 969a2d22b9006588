"""``ftk export``: merge, write aside, open again and compare, put in place."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from ftk import CheckpointError, ConfigError, rundir
from ftk.opening import open_run

from ftk_export import ExportFormat, ExportOptions
from ftk_export.gate import Gate, ParityError, WithTransformers
from ftk_export.merging import as_asked, merged
from ftk_export.modelfile import write_modelfile
from ftk_export.writing import check_room, check_target

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.export")
RECORD = "ftk_export.json"


@click.command(
    context_settings={
        "ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"],
    }
)  # fmt: skip
@click.argument("source")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--no-verify", is_flag=True, help="Do not open the export again and compare it.")
def export(source: str, words: tuple[str, ...], no_verify: bool) -> None:
    """Merge adapters and write one folder that other programs load.

    SOURCE is the YAML of a run, its run directory, or a model's folder. The folder is export_dir; export_format,
    export_dtype and all other keys go after SOURCE.
    """
    run = open_run("export", source, [*words, *(["--export_verify", "false"] if no_verify else [])])
    target = check_target(run)
    told = export_run(run, target)
    click.echo(f"{target}: {told}")


def export_run(run: Run, target: Path) -> str:
    """Write the export of a run into a folder that is not there yet, and say what was compared.

    Raises FtkError; nothing is left behind then.
    """
    options, form = run.options(ExportOptions), cast("ExportFormat", run.plan.one("export_format"))
    if run.plan.one("template") is None:
        raise ConfigError(f"{run.plan.config}: template: not set, and the model brings none")
    gate = Gate(run)
    model = as_asked(merged(run, gate.look), run)
    needed = check_room(model, target, form)
    log.info("writing %.1f GB as %s", needed / 1e9, form.name)
    with put_in_place(target) as aside:
        write: Any = form.load()
        write(model, aside, run)
        if options.export_modelfile:
            write_modelfile(aside, form, run)
        told = "not compared with the trained model"
        if options.export_verify:
            told = _compared(run, form, gate, aside, model)
        rundir.write_text(aside / RECORD, json.dumps(_record(run, form, told), indent=2) + "\n")
    if options.export_hub_model_id:
        send(target, options.export_hub_model_id, run)
    return told


def _compared(run: Run, form: ExportFormat, gate: Gate, folder: Path, model: Any) -> str:
    options = run.options(ExportOptions)
    opened: Any = form.load("opens")(folder, run, model) if form.opens else WithTransformers(folder, type(model))
    stated = getattr(opened, "tolerance", form.tolerance)
    tolerance = options.export_tolerance or max(stated, ROUNDING[options.export_dtype])
    try:
        return gate.compare(opened, tolerance)
    except ParityError as error:
        raise ParityError(f"{form.name}: {error}. Nothing was written") from error


ROUNDING = {"auto": 0.0, "float32": 0.0, "bfloat16": 3e-2, "float16": 4e-3}
"""How far logits may be apart when the weights are written in another type: a few times its rounding."""


def _record(run: Run, form: ExportFormat, told: str) -> dict[str, Any]:
    return {
        "format": form.name, "model": run.value("model_name_or_path"),
        "adapters": list(run.value("adapter_name_or_path")), "template": run.template.name, "verified": told,
        "written": rundir.now(), "libraries": rundir.library_versions(["torch", "transformers", "peft", "ftk-export"]),
    }  # fmt: skip


@contextmanager
def put_in_place(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``target`` when the block ends well, and is removed when it does not."""
    aside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        if target.exists():
            target.rmdir()  # it was looked at: it is empty
        aside.replace(target)
    except OSError as cause:
        raise CheckpointError(f"{target}: cannot be written: {cause.strerror or cause}. Nothing was") from cause
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def send(folder: Path, name: str, run: Run) -> None:
    """Send an export to a private repository on the hub.

    Raises CheckpointError with what the hub says, without the token that it was told.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    token = run.value("hf_hub_token") if "hf_hub_token" in run.plan.registry.options else None
    try:
        api = HfApi(token=token)
        api.create_repo(name, exist_ok=True, private=True)
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="Exported by ftk")
    except (HfHubHTTPError, OSError, ValueError) as cause:
        said = " ".join(str(cause).split())[:300]
        said = said.replace(token, "***") if token else said
        raise CheckpointError(f"{name}: cannot be sent, and is complete in {folder}: {said}") from None
    click.echo(f"sent to {name}")
