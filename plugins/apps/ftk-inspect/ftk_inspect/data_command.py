"""``ftk data``: what stands on the command line of its two commands."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import click
from ftk import ConfigError, DataError

from ftk_inspect.template_command import CONTEXT, verbose_option, words_argument

config_argument = click.argument("config", metavar="CONFIG")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def data() -> None:
    """Look at the rows that a run would train, and at what became of the data.

    Example: ftk data preview quickstart.yaml
    """


@data.command(context_settings=CONTEXT, short_help="Rows as tokens: what is trained, what is not.")
@config_argument
@words_argument
@click.option("-n", "number", default=3, show_default=True, type=click.IntRange(1), help="How many rows.")
@click.option("--split", default="train", show_default=True, type=click.Choice(("train", "eval")), help="Which rows.")
@click.option("--html", type=click.File("w", encoding="utf-8", lazy=True), metavar="FILE|-", help="Write a page.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of rows with input_ids, labels and segments.")
@verbose_option
def preview(config: str, words: tuple[str, ...], number: int, split: str, html: Any, as_json: bool) -> None:
    """Show rows as they are trained: which tokens there are, and which of them count in the loss.

    CONFIG is the YAML of a run or a run directory; --KEY VALUE replaces its keys. All rows are made (or come from the
    cache) to show a few; for a quick look at much data add --max_samples 100.

    \b
    Examples:
      ftk data preview quickstart.yaml -n 1 --packing true
      ftk data preview quickstart.yaml --html rows.html
    """
    from ftk_inspect.page import page
    from ftk_inspect.pieces import parts_of
    from ftk_inspect.rows import opened_data, quiet
    from ftk_inspect.terminal import as_dict, print_rows

    if html and as_json:
        raise click.UsageError("--html and --json exclude each other")
    with opened_data(config, words) as opened, quiet():
        made = opened.run.rows(split)
        rows = list(islice(made, number))
        if not rows:
            raise ConfigError(f"{config}: has no {split} rows. Set eval_dataset or val_size, or look at --split train")
        total = len(made) if hasattr(made, "__len__") else None
        parts = [parts_of(row, opened.run.tokenizer) for row in rows]
    if as_json:
        lines = [json.dumps(as_dict(row, some), ensure_ascii=False) for row, some in zip(rows, parts, strict=True)]
        click.echo("[\n" + ",\n".join(lines) + "\n]")
    elif html:
        html.write(page(f"{config}, {split}", parts, total))
    else:
        print_rows(parts, total)


@data.command(context_settings=CONTEXT, short_help="Rows in and out and why, tokens, packing, lengths.")
@config_argument
@words_argument
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, with the histogram.")
@verbose_option
@click.pass_context
def report(ctx: click.Context, config: str, words: tuple[str, ...], as_json: bool) -> None:
    """What becomes of the data: rows in and out and why they went, tokens, packing, lengths.

    CONFIG is the YAML of a run or a run directory; --KEY VALUE replaces its keys. No model is loaded, and nothing is
    written into output_dir. The exit code is 1 when the data would stop the run: a malformed row (--on_bad_row skip
    counts them instead), no row left, no trained token.

    \b
    Example:
      ftk data report quickstart.yaml --cutoff_len 512 --packing true
    """
    from ftk_inspect.report import make_report, print_report

    try:
        made = make_report(config, words)
    except DataError as error:
        if ctx.find_root().params.get("verbose"):
            raise
        click.echo(f"error: {error}", err=True)
        ctx.exit(1)
    if as_json:
        click.echo(json.dumps(made, indent=2, ensure_ascii=False))
    else:
        print_report(made)
