"""``ftk lm-eval``: what stands on the command line, and the harness's own evaluation around the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from ftk import ConfigError, rundir
from ftk.opening import open_run
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table

from ftk_lm_eval.harness import EngineLM


@click.command(
    "lm-eval",
    context_settings={
        "ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"],
    },
)  # fmt: skip
@click.argument("source", metavar="CONFIG")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--tasks", required=True, metavar="NAMES", help="The harness's names or YAML files, with commas.")
@click.option("--num-fewshot", type=click.IntRange(0), metavar="N", help="Solved examples; unset is the task's own.")
@click.option("--limit", type=click.FloatRange(0, min_open=True), metavar="N", help="Only so many of each task.")
@click.option("--include-path", metavar="FOLDER", help="Tasks of your own.")
@click.option("--chat/--no-chat", default=True, show_default=True, help="Ask through the run's chat template.")
@click.option("--at-once", type=click.IntRange(1), default=8, show_default=True, help="Requests of a batch.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Results and samples as JSON.")
@click.option("--base", is_flag=True, help="Ask the model from before the training.")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks.")
def lm_eval_command(
    source: str, words: tuple[str, ...], tasks: str, num_fewshot: int | None, limit: float | None,
    include_path: str | None, chat: bool, at_once: int, output: Path | None, base: bool, verbose: bool,
) -> None:  # fmt: skip
    """The tasks of lm-evaluation-harness, asked through ftk's engines and templates.

    CONFIG is the YAML of a run or its run directory; what the run has trained is asked.
    """
    run = open_run("lm-eval", source, words, base=base)
    asked = [name.strip() for name in tasks.split(",") if name.strip()]
    manager = tasks_of(asked, include_path)
    engine = run.engine()
    try:
        found = simple_evaluate(
            model=EngineLM(run, engine, at_once), tasks=asked, num_fewshot=num_fewshot, limit=limit,
            apply_chat_template=chat, fewshot_as_multiturn=chat, task_manager=manager, random_seed=run.seed,
            numpy_random_seed=run.seed, torch_random_seed=run.seed, fewshot_random_seed=run.seed, bootstrap_iters=1000,
        )  # fmt: skip
    finally:
        engine.close()
    report(found, output)


def tasks_of(asked: list[str], include_path: str | None) -> TaskManager:
    """What knows the tasks. The harness has thousands of its own, which are read when the folder has not all.

    Raises ConfigError for a task that is nowhere.
    """
    unknown = asked
    for defaults in (False, True) if include_path else (True,):
        manager = TaskManager(include_path=include_path, include_defaults=defaults)
        unknown = [name for name in asked if not Path(name).exists() and not manager.match_tasks([name])]
        if not unknown:
            return manager
    where = "--include-path names a folder of yours"
    raise ConfigError(f"--tasks: {unknown[0]}: the harness knows no such task. {where}")


def report(found: Any, output: Path | None) -> None:
    """The harness's tables on stdout, everything into the file."""
    click.echo(make_table(found))
    if found.get("groups"):
        click.echo(make_table(found, "groups"))
    if output is not None:
        rundir.make(output.parent)
        rundir.write_text(output, json.dumps(found, indent=2, ensure_ascii=False, default=str) + "\n")
        click.echo(f"results: {output}", err=True)
