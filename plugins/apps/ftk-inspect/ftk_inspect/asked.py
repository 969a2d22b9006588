"""What stands behind the words of a command line: a template by name, a model, a YAML or a run directory, as a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ftk_data
from ftk import ConfigError, PluginError, Tokens
from ftk.opening import open_run
from ftk.rundir import RECORD

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_data.rendering import Renderer

NO_MODEL = "none"
"""The ``model_name_or_path`` of a run that shows a named template without any model."""


class NamedTokens:
    """What a renderer asks of a tokenizer, for a named template without a model."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.special_tokens_map = dict(tokens)
        self.chat_template = None

    def get_added_vocab(self) -> dict[str, int]:
        return {}


def open_template(
    what: str, words: Sequence[str] = (), *, model: str | None = None, tokens: Mapping[str, str] | None = None
) -> Run:
    """The run whose template ``what`` asks for.

    what: the name of a template, the folder or address of a model, a YAML, or a run directory. model: the model of a
    named template; without one the run has no tokenizer but ``tokens`` (``bos_token`` … → text).
    Raises FtkError subclasses for whatever is wrong.
    """
    chosen = ["--model_name_or_path", model] if model else []
    if is_source(what) or is_model(what):
        return open_model(what, [*chosen, *words])
    try:
        run = open_run("template", None, ["--model_name_or_path", model or NO_MODEL, "--template", what, *words])
    except PluginError as cause:
        if Path(what).is_dir():
            return open_model(what, words)
        raise PluginError(f"{cause}. A model is a folder, owner/name or ftk://tiny-chat") from cause
    if not has_model(run):
        run.tokens = Tokens(NamedTokens(tokens or {}))
    return run


def open_model(what: str, words: Sequence[str] = ()) -> Run:
    """The run of a model, a YAML or a run directory. Raises FtkError subclasses for whatever is wrong."""
    if is_source(what):
        return open_run("template", what, words)
    return open_run("template", None, ["--model_name_or_path", what, *words])


def is_source(what: str) -> bool:
    """Whether a word names a YAML or a run directory."""
    path = Path(what)
    return (path / RECORD).exists() or (path.is_file() and path.suffix in (".yaml", ".yml", ".json"))


def is_model(what: str) -> bool:
    """Whether a word can only be a model: names of templates have no slash."""
    return "://" in what or "/" in what or "\\" in what


def has_model(run: Run) -> bool:
    """Whether the run has a model, and not only the name of a template."""
    return bool(run.value("model_name_or_path") != NO_MODEL)


def is_own(run: Run) -> bool:
    """Whether the template is rendered by code for the model at hand, as the model's own is."""
    return bool(run.template.target)


def renderer_of(run: Run) -> Renderer:
    """The renderer of the run's template.

    Raises ConfigError for a template that needs a model where there is none.
    """
    if is_own(run) and not has_model(run):
        name = run.template.name
        raise ConfigError(f"template {name}: depends on the model. Add --model with a folder, owner/name or address")
    return ftk_data.renderer(run)


def variables_of(run: Run) -> dict[str, Any]:
    """What the command line sets that templates see: ``enable_thinking`` and ``preserve_thinking``."""
    switches = ("enable_thinking", "preserve_thinking")
    return {key: run.value(key) for key in switches if key in run.plan.given and run.value(key) is not None}
