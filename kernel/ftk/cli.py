"""The command line. Only what every command needs is imported here; the rest when its command is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from ftk.errors import FtkError
from ftk.version import __version__

if TYPE_CHECKING:
    from ftk.registry import Registry

OWN = {
    "run": ("ftk.cli:run", "Do what a YAML says: load, fine-tune, evaluate, save."),
    "plugins": ("ftk.cli_plugins:plugins", "List, inspect, check and create plugins."),
    "options": ("ftk.cli_options:options", "What can stand in a YAML, and which plugin owns it."),
    "schema": ("ftk.cli_options:schema", "One JSON Schema of all installed options, for editors."),
    "doctor": ("ftk.cli_plugins:doctor", "Versions, devices, and what is wrong with the plugins."),
}
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}


class Commands(click.Group):
    """The kernel's own commands and those of the plugins, listed without importing either."""

    def registry(self, ctx: click.Context) -> Registry:
        """What is installed, found once in a call of the command line."""
        from ftk.registry import Registry

        if "ftk.registry" not in ctx.meta:
            ctx.meta["ftk.registry"] = Registry.discover()
        return cast("Registry", ctx.meta["ftk.registry"])

    def summaries(self, ctx: click.Context) -> dict[str, str]:
        found = {name: spec.summary for name, spec in self.registry(ctx).specs("command").items()}
        return {**found, **{name: summary for name, (_, summary) in OWN.items()}}

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """``ftk run CONFIG --NAME`` is ``ftk NAME CONFIG`` where ``Command.run_flag`` says so."""
        for word, after in zip(args[1:], [*args[2:], "--"], strict=False):
            bare = word.startswith("--") and (after.startswith("--") or word == args[1])
            own = word == "--help" or any(word in option.opts for option in run.params)
            if args[0] == "run" and bare and not own and word in self.run_flags(ctx):
                args = [word[2:], *(one for one in args[1:] if one != word)]
        return super().resolve_command(ctx, args)

    def run_flags(self, ctx: click.Context) -> dict[str, str]:
        specs = self.registry(ctx).specs("command")
        return {f"--{name}": spec.summary for name, spec in specs.items() if getattr(spec, "run_flag", False)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.summaries(ctx))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        from ftk.specs import load_target

        target = (
            load_target(OWN[name][0], f"ftk {name}") if name in OWN else self.registry(ctx).find("command", name).load()
        )
        assert isinstance(target, click.Command), f"ftk {name}: {target!r} is no click command"
        return target

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self.summaries(ctx).items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Turn a user's mistake into one line and exit code 2; ``-v`` shows where it was raised."""
        try:
            return super().invoke(ctx)
        except FtkError as error:
            if ctx.params.get("verbose"):
                raise
            for line in str(error).splitlines():
                click.echo(f"error: {line}", err=True)
            ctx.exit(error.exit_code)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog="ftk plugins list shows more."
)
@click.version_option(__version__, "--version", message="ftk-kernel %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks and debug messages.")
def main(verbose: bool) -> None:
    """Fine-tune language and vision-language models. One YAML describes a run: ftk run config.yaml"""
    import logging

    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("ftk").setLevel(logging.DEBUG if verbose else logging.INFO)


class RunCommand(click.Command):
    """``ftk run``, whose help lists the commands that are flags of it."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if flags := main.run_flags(ctx):
            with formatter.section("Instead of running"):
                formatter.write_dl(list(flags.items()))


@click.command(cls=RunCommand, context_settings={**PASS_ON, "help_option_names": ["-h", "--help"]})
@click.argument("config")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks.")
@click.pass_context
def run(ctx: click.Context, config: str, words: tuple[str, ...], dry_run: bool, verbose: bool) -> None:
    """Do what CONFIG says, with single values replaced: --learning_rate 1e-5 or learning_rate=1e-5.

    ftk options lists the keys; ftk options KEY explains one.
    """
    from ftk.opening import plan_run

    ctx.find_root().params["verbose"] |= verbose
    plan = plan_run(config, words)
    if dry_run:
        from ftk.showing import show_plan

        show_plan(plan)
        return
    for note in plan.notes:
        click.echo(f"note: {note}", err=True)
    from ftk.run import execute_or_launch

    ctx.exit(execute_or_launch(plan, [config, *words]))


if __name__ == "__main__":
    main(prog_name="ftk")
