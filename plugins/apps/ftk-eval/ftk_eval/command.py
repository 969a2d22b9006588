"""``ftk eval``: ask the questions of a task subject by subject, and say how many were answered right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ftk import ConfigError
from ftk.opening import open_run
from ftk.showing import show_table

from ftk_eval import EvaluationOptions
from ftk_eval.judging import Judge
from ftk_eval.question_sets import QuestionSet
from ftk_eval.results import Results

if TYPE_CHECKING:
    from ftk.run import Run


@click.command(
    context_settings={
        "ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"],
    }
)  # fmt: skip
@click.argument("source", metavar="CONFIG")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--restart", is_flag=True, help="Begin anew whatever save_dir holds.")
@click.option("--base", is_flag=True, help="Ask the model from before the training.")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks.")
def evaluate(source: str, words: tuple[str, ...], restart: bool, base: bool, verbose: bool) -> None:
    """Multiple choice by log-probability.

    CONFIG is the YAML of a run or its run directory; what the run has trained is asked. task names the questions, which
    lie in task_dir. Killed at any moment, the same command goes on with the next subject when there is a save_dir.
    """
    run = open_run("eval", source, words, base=base)
    results = evaluated(run, restart=restart)
    show_table(("subject", "questions", "accuracy"), results.table())
    if results.path is not None:
        click.echo(f"results: {results.path}", err=True)


def evaluated(run: Run, *, restart: bool = False) -> Results:
    """The results of a run's model in the run's task. Raises FtkError."""
    options = run.options(EvaluationOptions)
    if not options.task:
        raise ConfigError(f"{run.plan.config}: task: not set. Say for instance --task mmlu_test")
    asked = QuestionSet(options.task, options.task_dir)
    results = Results(options.save_dir, facts_of(run), anew=restart)
    subjects = [asked.read(key, options.n_shot) for key in asked.subjects]
    results.subjects = {one.key: results.subjects[one.key] for one in subjects if results.has(one)}
    left = [subject for subject in subjects if not results.has(subject)]
    if results.subjects:
        click.echo(f"{len(results.subjects)} of {len(subjects)} subjects were answered before; going on", err=True)
    if not left:
        return results
    engine = run.engine()
    try:
        judge = Judge(run, engine, options.lang, letters=options.eval_choice == "letter")
        progress = Progress(sum(len(subject.questions) for subject in left))
        for subject in left:
            results.add(subject, judge.choices(subject, options.batch_size, progress.add))
    finally:
        engine.close()
    if judge.shortened:
        note = "had fewer solved ones before them than n_shot, because the model reads no more"
        click.echo(f"{judge.shortened} questions {note}", err=True)
    return results


class Progress:
    """One line on a terminal, again and again; elsewhere when all is done."""

    def __init__(self, total: int) -> None:
        self.done, self.total = 0, total

    def add(self, num: int) -> None:
        """So many questions more were answered."""
        self.done += num
        live = sys.stderr.isatty()
        if live or self.done == self.total:
            end = "\r" if live and self.done < self.total else "\n"
            click.echo(f"answered {self.done} of {self.total} questions{end}", nl=False, err=True)


def facts_of(run: Run) -> dict[str, Any]:
    """What answers depend on, questions aside."""
    keys = (
        "model_name_or_path", "adapter_name_or_path", "infer_backend", "quantization_bit", "task", "n_shot",
        "lang", "eval_choice",
    )  # fmt: skip
    folders = [run.value("model_name_or_path"), *run.value("adapter_name_or_path")]
    weights = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for one in folders for path in _weights(one)]
    return {**{key: run.value(key) for key in keys}, "template": run.template.name, "weights": weights}


def _weights(folder: Any) -> list[Path]:
    return sorted(Path(str(folder)).glob("*.safetensors"))
