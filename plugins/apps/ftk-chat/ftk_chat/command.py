"""``ftk chat``: what stands on the command line, and what is said about the model before it talks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from ftk import ConfigError, Media
from ftk.kernel_options import SamplingOptions
from ftk.opening import open_run
from ftk.rundir import RECORD, read_record
from ftk_data import renderer

from ftk_chat import history
from ftk_chat.conversation import Conversation, read_tools
from ftk_chat.talking import answer_once, talk

if TYPE_CHECKING:
    from ftk.run import Run


@click.command(
    context_settings={
        "ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"],
    }
)  # fmt: skip
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[SOURCE] [--KEY VALUE]...")
@click.option("--system", metavar="TEXT", help="The system text of the conversation.")
@click.option("--prompt", metavar="TEXT", help="Ask this once, print the answer and nothing else, and end.")
@click.option("--image", "images", multiple=True, metavar="FILE", help="Show it with the first words; may be repeated.")
@click.option("--video", "videos", multiple=True, metavar="FILE", help="The same with a video.")
@click.option("--audio", "audios", multiple=True, metavar="FILE", help="The same with a sound.")
@click.option("--tools", type=click.Path(path_type=Path), metavar="FILE", help="JSON of tools that the model may call.")
@click.option("--adapter", metavar="NAME", help="Which adapter of lora_modules answers; unset is the run's own.")
@click.option("--history", "kept", type=click.Path(path_type=Path), metavar="FILE", help="Go on with it, and keep it.")
@click.option("--base", is_flag=True, help="Talk to the model from before the training.")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks.")
def chat(
    words: tuple[str, ...], system: str | None, prompt: str | None, images: tuple[str, ...], videos: tuple[str, ...],
    audios: tuple[str, ...], tools: Path | None, adapter: str | None, kept: Path | None, base: bool, verbose: bool,
) -> None:  # fmt: skip
    """Talk to a model, or to what a run has made of it.

    SOURCE is the YAML of a run, its run directory, or a model's folder or ftk:// address. Without it, say
    --model_name_or_path. --temperature, --max_new_tokens and all other keys go after it.
    """
    source, rest = split_source(words)
    run = open_run("chat", source, rest, base=base)
    engine = run.engine()
    try:
        click.echo(introduction(run), err=True)
        if not base and (lack := what_is_missing(run)):
            click.echo(lack, err=True)
        conversation = Conversation(engine, renderer(run), run.options(SamplingOptions), seed_of(run), system)
        prepare(conversation, tools, adapter, kept)
        for kind, paths in (("image", images), ("video", videos), ("audio", audios)):
            conversation.showing += [Media(kind, path) for path in paths]
        if prompt is not None:
            answer_once(conversation, prompt)
            if kept is not None:
                history.save(conversation, kept)
        else:
            talk(conversation, kept)
    finally:
        engine.close()


def prepare(conversation: Conversation, tools: Path | None, adapter: str | None, kept: Path | None) -> None:
    """What was said before, the tools and the adapter. Raises FtkError for what is not there."""
    system = conversation.system
    if kept is not None and kept.exists():
        history.load(conversation, kept)
        conversation.system = system or conversation.system
    if tools is not None:
        conversation.offer(read_tools(tools))
    if adapter is not None and adapter not in conversation.adapters:
        known = ", ".join(conversation.adapters) or "none"
        raise ConfigError(f"--adapter {adapter}: lora_modules does not name it; it names {known}")
    conversation.adapter = adapter


def split_source(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The SOURCE and the ``--key value`` words. A model that is named as SOURCE becomes ``--model_name_or_path``."""
    if not words or words[0].startswith("--") or ("=" in words[0] and "://" not in words[0]):
        return None, list(words)
    source, *rest = words
    folder = Path(source)
    if "://" in source or (folder.is_dir() and not (folder / RECORD).exists() and (folder / "config.json").exists()):
        return None, ["--model_name_or_path", source, *rest]
    return source, rest


def seed_of(run: Run) -> int | None:
    """The seed when somebody set one; a conversation without one differs each time."""
    return run.seed if "seed" in run.plan.given else None


def what_is_missing(run: Run) -> str:
    """Why the answers are not those of a trained model, though the settings describe a run; empty when they are."""
    folder = run.value("output_dir")
    if not folder or run.value("adapter_name_or_path") or (read_record(folder) or {}).get("status") == "finished":
        return ""
    return f"{folder} holds no finished run, so this is the model from before the training"


def introduction(run: Run) -> str:
    """Which model answers: its name, adapters, size, type and template, in one line."""
    model = run.model(trainable=False)
    parts = [str(run.value("model_name_or_path"))]
    parts += [f"+ {path}" for path in run.value("adapter_name_or_path")]
    return f"{' '.join(parts)} ({describe(model)}, template {run.template.name})"


def describe(model: Any) -> str:
    """``1.9M parameters, float32, cpu``."""
    count = float(model.num_parameters())
    unit = next((letter for limit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")) if count >= limit), "")
    size = count / {"B": 1e9, "M": 1e6, "K": 1e3, "": 1}[unit]
    return f"{size:.3g}{unit} parameters, {str(model.dtype).removeprefix('torch.')}, {model.device}"
