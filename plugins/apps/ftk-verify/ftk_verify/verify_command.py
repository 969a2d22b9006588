"""``ftk verify``: the checks one by one, and their table."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import click
from ftk import ConfigError, FtkError
from ftk.errors import did_you_mean
from ftk.plan import Conditions, Plan
from ftk_training.checks import Check, NotApplicable, Outcome
from rich.console import Console
from rich.table import Table
from rich.text import Text

log = logging.getLogger("ftk.verify")
WORDS = {True: ("passed", "green"), False: ("FAILED", "bold red"), None: ("not tried", "yellow")}


class Finding(NamedTuple):
    """What became of one check."""

    check: Check
    outcome: Outcome
    seconds: float


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("config")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--only", multiple=True, metavar="NAME", help="Make this check only; can be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(ctx: click.Context, config: str, words: Sequence[str], only: Sequence[str], as_json: bool) -> None:
    """Check on the model and data of CONFIG that training does what it should, with a few rows and steps.

    Nothing is written to its output_dir. Exit code 1 when a check fails.
    """
    from ftk_verify.bench import Bench

    with tempfile.TemporaryDirectory(prefix="ftk-verify-") as folder:
        bench = Bench(config, words, Path(folder))
        chosen = chosen_checks(bench.plan, only)
        console = Console(stderr=True, highlight=False)
        findings = []
        with console.status("") as status:
            for check in chosen:
                status.update(f"{check.name}: {check.summary}")
                findings.append(tried(check, bench))
    if as_json:
        click.echo(json.dumps([as_dict(finding) for finding in findings], indent=2))
    else:
        show(findings, config)
    ctx.exit(int(any(finding.outcome.passed is False for finding in findings)))


def chosen_checks(plan: Plan, only: Sequence[str]) -> list[Check]:
    """The checks that were asked for, all without a word. Raises ConfigError for one that is not there."""
    installed = cast("dict[str, Check]", plan.registry.specs(Check.kind))
    for name in only:
        if name not in installed:
            guess = did_you_mean(name, installed)
            raise ConfigError(f"--only {name}: is no check.{guess} There is {', '.join(installed)}")
    own = [check for check in installed.values() if not check.needs]
    of_others = [check for check in installed.values() if check.needs and not why_not(check, plan)]
    return [installed[name] for name in dict.fromkeys(only)] or [*own, *of_others]


def why_not(check: Check, plan: Plan) -> str:
    """The condition of a check that this run does not meet."""
    known = plan.registry.options
    conditions = Conditions(plan.registry, plan.chosen, lambda key: plan.value(key) if key in known else None)
    lacking = [f"it is about runs with {one}" for one in check.needs if not conditions.met(one)]
    return next(iter([*lacking, *(f"it is not about {one}" for one in check.excludes if conditions.met(one))]), "")


def tried(check: Check, bench: Any) -> Finding:
    """Make one check. Whatever a run raises is a failure; a programming error says its type and, with -v, its place."""
    began = time.monotonic()
    if reason := why_not(check, bench.plan):
        return Finding(check, Outcome(None, reason), 0.0)
    try:
        outcome = cast("Outcome", check.load()(bench))
    except NotApplicable as reason_given:
        outcome = Outcome(None, str(reason_given))
    except FtkError as error:
        outcome = Outcome(False, str(error))
    except Exception as error:
        log.debug("%s", check.name, exc_info=True)
        outcome = Outcome(False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return Finding(check, outcome, time.monotonic() - began)


def show(findings: Sequence[Finding], config: str) -> None:
    """Print the table, and below it what to do about what failed."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("check", "result", "found", "tolerance", "seconds"):
        table.add_column(
            title, overflow="fold", no_wrap=title != "found", justify="right" if title == "seconds" else "left"
        )
    for check, outcome, seconds in findings:
        word, style = WORDS[outcome.passed]
        table.add_row(check.name, Text(word, style), outcome.said, outcome.tolerance, f"{seconds:.1f}")
    if not console.is_terminal:
        console = Console(width=max(80, table.__rich_measure__(console, console.options.update(width=10_000)).maximum))
    console.print(table)
    for check, outcome, _ in findings:
        if outcome.passed is False:
            console.print(Text(f"\n{check.name}: {check.summary}: it does not.", "bold"), soft_wrap=True)
            for line in (*outcome.details, *filter(None, [check.mend])):
                console.print(Text(f"  {line}"), soft_wrap=True)
    console.print(Text(f"\n{summed_up(findings, config)}"), soft_wrap=True)


def summed_up(findings: Sequence[Finding], config: str) -> str:
    """How many checks ended how."""
    counts = {word: sum(one.outcome.passed is passed for one in findings) for passed, (word, _) in WORDS.items()}
    return f"{config}: {', '.join(f'{number} {word}' for word, number in counts.items() if number)}"


def as_dict(finding: Finding) -> dict[str, Any]:
    """One finding for programs."""
    check, outcome, seconds = finding
    return {
        "name": check.name, "checks": check.summary, "passed": outcome.passed, "found": outcome.said,
        "tolerance": outcome.tolerance, "details": list(outcome.details), "mend": check.mend,
        "seconds": round(seconds, 2),
    }  # fmt: skip
