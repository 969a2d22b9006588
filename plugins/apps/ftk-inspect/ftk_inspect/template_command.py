"""``ftk template``: what stands on the command line of its three commands."""

from __future__ import annotations

import json
from typing import Any

import click
from ftk import DataError

CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]}
words_argument = click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
model_option = click.option("--model", metavar="MODEL", help="The model whose tokens a named template is filled with.")


def set_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.find_root().params["verbose"] = bool(ctx.find_root().params.get("verbose")) or value


verbose_option = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=set_verbose, help="Show tracebacks."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def template() -> None:
    """Show a chat template, render with it, compare it with the model's own.

    Example: ftk template show ftk://tiny-chat
    """


@template.command(context_settings=CONTEXT, short_help="Formats, stop words, tools and thinking of a template.")
@click.argument("what", metavar="NAME|MODEL")
@words_argument
@model_option
@click.option("--jinja", is_flag=True, help="Print the Jinja source that is saved with a model, and nothing else.")
@verbose_option
def show(what: str, words: tuple[str, ...], model: str | None, jinja: bool) -> None:
    """What a chat template writes, where it comes from, and what it knows of tools and reasoning.

    NAME is an installed template (ftk options template lists them). MODEL is a folder, owner/name on the hub or
    ftk://tiny-chat; a YAML and a run directory will do, too. default_system and tool_format can be set after it.

    \b
    Examples:
      ftk template show qwen3
      ftk template show saves/quickstart
      ftk template show chatml --default_system "Be brief." --jinja > chat_template.jinja
    """
    from ftk_inspect.asked import open_template, renderer_of
    from ftk_inspect.sheet import print_sheet

    run = open_template(what, words, model=model)
    if jinja:
        source = renderer_of(run).jinja()
        # Jinja drops one newline at the end of a file, so a source that ends with its own gets no other
        click.echo(source, nl=not source.endswith("\n"))
    else:
        print_sheet(run)


@template.command(context_settings=CONTEXT, short_help="The exact text of conversations in a file.")
@click.argument("what", metavar="NAME|MODEL")
@click.argument("file", type=click.File(encoding="utf-8"), metavar="FILE.jsonl")
@words_argument
@model_option
@click.option("--bos", default="", metavar="TEXT", help="The start token of a NAME without --model; none by default.")
@click.option("--eos", default="", metavar="TEXT", help="The end token of a NAME without --model; none by default.")
@verbose_option
def render(what: str, file: Any, words: tuple[str, ...], model: str | None, bos: str, eos: str) -> None:
    """Print what a template writes for each line of FILE, as one JSON string; FILE may be -.

    A line is {"messages": [...], "tools": [...], "add_generation_prompt": true, "template_kwargs": {...}} in the form
    of the OpenAI API, all but the messages optional; reasoning stands under reasoning_content, wherever the template
    looks for it. A line that cannot be rendered gives {"error": "..."}.
    What comes out is what transformers renders with the template that is saved with a model.

    \b
    Example:
      echo '{"messages": [{"role": "user", "content": "Hi"}]}' | ftk template render qwen3 -
    """
    from ftk_inspect.asked import open_template, renderer_of, variables_of
    from ftk_inspect.jinja import rendered_lines, tokens_of

    run = open_template(what, words, model=model, tokens={"bos_token": bos, "eos_token": eos})
    source = renderer_of(run).jinja()
    try:
        for line in rendered_lines(source, file, {**tokens_of(run), **variables_of(run)}):
            click.echo(as_json(line))
    except UnicodeDecodeError as cause:
        raise DataError(f"{file.name}: is not UTF-8 text: {cause.reason} at byte {cause.start}") from cause


def as_json(value: Any) -> str:
    """JSON in one line; with escapes where the text holds what UTF-8 cannot say (half of a surrogate pair)."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() or _is_utf8(text) else json.dumps(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@template.command(context_settings=CONTEXT, short_help="Compare with the model's own; is the stop token trained?")
@click.argument("model", metavar="MODEL")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[NAME] [--KEY VALUE]...")
@verbose_option
@click.pass_context
def check(ctx: click.Context, model: str, words: tuple[str, ...]) -> None:
    """Whether the template NAME writes what the model's own does, and whether its answers can be learnt.

    Renders some conversations with both and shows where they first differ. Then, of NAME or else of the model's own:
    does what is trained end with a token that stops an answer, and does each prompt begin with the row before it?
    (Where it does not, because history is rewritten, each answer is trained in a row of its own.)
    The exit code is 1 when a conversation differs or the stop token is not trained.

    \b
    Examples:
      ftk template check Qwen/Qwen3-8B qwen3
      ftk template check ftk://tiny-chat
    """
    from ftk_inspect.checking import check_template

    named = bool(words) and not words[0].startswith("--") and "=" not in words[0]
    name, rest = (words[0], words[1:]) if named else (None, words)
    ctx.exit(0 if check_template(model, name, rest) else 1)
