"""``ftk predict``: what stands on the command line, which prompts are answered, and where the answers go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from ftk import ConfigError, rundir
from ftk.opening import open_run
from ftk_data.questions import Question, questions
from ftk_training import TrainingOptions
from ftk_training.predicting import Answering, compared, facts_of, processes
from ftk_training.predictions_file import FILE, PredictionsFile

if TYPE_CHECKING:
    from ftk.run import Run


@click.command(
    context_settings={
        "ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"],
    }
)  # fmt: skip
@click.argument("source", metavar="CONFIG")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help=f"Unset is {FILE} in output_dir.")
@click.option("--restart", is_flag=True, help="Begin anew whatever FILE holds.")
@click.option("--base", is_flag=True, help="Let the model from before the training answer.")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks.")
def predict(source: str, words: tuple[str, ...], output: Path | None, restart: bool, base: bool, verbose: bool) -> None:
    """Answer the prompts of a data set, in batches and in their order.

    CONFIG is the YAML of a run or its run directory; what the run has trained answers. The prompts are those of
    eval_dataset, of what val_size sets aside, or else of dataset. Killed at any moment, the same command goes on.
    """
    run = open_run("predict", source, words, base=base)
    if "metrics" in run.plan.given and not run.value("predict_with_generate"):
        click.echo("metrics: have no effect without predict_with_generate: true", err=True)
    split, asked = prompts_of(run)
    answering = Answering(run, asked, run.options(TrainingOptions).per_device_eval_batch_size, processes())
    facts = facts_of(run, asked, split, at_once=answering.rows_at_once)
    file = PredictionsFile(output or default_output(run), facts)
    first = answering.processes.rank == 0
    if first:
        click.echo(f"{len(asked)} prompts of {SPLITS[split]}; answers go to {file.path}", err=True)
    predictions = answering.into(file, run.engine, anew=restart)
    if first:
        report(file, compared(run, predictions))


SPLITS = {"eval": "the evaluation data", "train": "the training data"}


def prompts_of(run: Run) -> tuple[str, list[Question]]:
    """Which split is answered, and its prompts. Raises ConfigError when there are none."""
    for split in SPLITS:
        if asked := questions(run, split):
            return split, asked
    raise ConfigError(f"{run.plan.config}: there are no prompts to answer. Set eval_dataset or dataset")


def default_output(run: Run) -> Path:
    """The file in the run directory. Raises ConfigError without one."""
    folder = run.value("output_dir")
    if not folder:
        raise ConfigError(f"{run.plan.config}: output_dir: not set. Say --output FILE")
    return Path(folder) / FILE


def report(file: PredictionsFile, found: dict[str, float]) -> None:
    """The metrics beside the answers and on the terminal."""
    click.echo(f"answered {len(file.predictions)} prompts: {file.path}")
    if found:
        named = {f"predict_{name}": value for name, value in found.items()}
        rundir.write_text(file.path.with_name("predict_results.json"), json.dumps(named, indent=2) + "\n")
        click.echo(f"prediction: {', '.join(f'{name} {value:.2f}' for name, value in found.items())}")
