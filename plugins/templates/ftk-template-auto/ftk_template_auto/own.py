"""Rendering with the Jinja chat template that a tokenizer carries."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jinja2
from ftk import ChatTemplate, ConfigError
from ftk_data.conversations import UNSET, JinjaRenderer
from ftk_data.environment import compiled
from ftk_data.rendering import declared, special_tokens, template_options, thinking_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ftk.run import Run
    from ftk_data import ToolFormat

log = logging.getLogger("ftk.template-auto")


def render(run: Run) -> JinjaRenderer:
    """The renderer of the tokenizer's own template, or of the declared one that fits the model.

    Raises ConfigError when the model has no template and none or several fit, and for a template that does not parse.
    """
    tokenizer = run.tokenizer
    source = tokenizer.chat_template
    chosen = cast("ToolFormat | None", run.plan.one("tool_format"))
    if isinstance(source, dict):
        source = source.get("default")
    if not source:
        spec = _fitting(run)
        log.info("%s brings no chat template; using %s, which fits its model_type", run.model_path, spec.name)
        return declared(spec, tokenizer, template_options(run), thinking_of(run), chosen)
    if chosen:
        raise ConfigError(
            f"tool_format: {chosen.name}: the model's own chat template writes its own dialect only. Take it out"
        )
    return own(source, tokenizer, template_options(run), thinking_of(run), _dialects(run))


def own(
    source: str, tokenizer: Any, options: Any, thinking: Any = UNSET, dialects: Sequence[ToolFormat] = ()
) -> JinjaRenderer:
    """The renderer of a template's source. ``thinking`` as in :class:`ftk_data.conversations.JinjaRenderer`.

    dialects: the tool formats among which the template's own may be. Raises ConfigError when the source does not parse.
    """
    try:
        compiled(source)
    except jinja2.TemplateSyntaxError as cause:
        raise ConfigError(f"the model's chat template does not parse: line {cause.lineno}: {cause.message}") from cause
    if options.preserve_thinking and "preserve_thinking" not in source:
        raise ConfigError(
            "preserve_thinking: the model's own chat template cannot keep earlier reasoning. Name a template that can"
        )
    return JinjaRenderer(
        source,
        tokens=special_tokens(tokenizer),
        special=frozenset(tokenizer.get_added_vocab()),
        default_system=options.default_system,
        thinking=thinking,
        preserve_thinking=options.preserve_thinking,
        dialects=tuple(dialects),
    )


def _dialects(run: Run) -> list[ToolFormat]:
    """The installed tool formats; none where the plugin that opens the kind is switched off."""
    registry = run.plan.registry
    return (
        cast("list[ToolFormat]", [*registry.specs("tool_format").values()]) if "tool_format" in registry.kinds else []
    )


def _fitting(run: Run) -> ChatTemplate:
    """The only installed template that lists the model's ``model_type`` and whose stop token the tokenizer has.

    Many models call themselves ``llama``; without its ``<|eot_id|>`` one is no Llama 3.
    """
    specs = [cast("ChatTemplate", spec) for spec in run.plan.registry.specs("template").values()]
    kind = _model_type(run.model_path)
    added = run.tokenizer.get_added_vocab()
    fitting = [spec for spec in specs if kind in spec.model_types and added.keys() >= set(spec.stop[:1])]
    if len(fitting) == 1:
        return fitting[0]
    names = [spec.name for spec in fitting or specs if not spec.default]
    why = f"several fit its model_type {kind}" if fitting else f"none fits its model_type {kind} and its tokens"
    raise ConfigError(f"template: {run.model_path} brings no chat template, and {why}. Name one: {', '.join(names)}")


def _model_type(model_path: str) -> str:
    config = Path(model_path) / "config.json"
    if config.exists():
        return str(json.loads(config.read_text(encoding="utf-8")).get("model_type", ""))
    from transformers import AutoConfig

    return str(AutoConfig.from_pretrained(model_path).model_type)
