"""Messages in the form of the OpenAI API through the source of a chat template, as transformers renders them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2
from ftk_data.environment import TemplateRefused, render_marked
from ftk_data.rendering import special_tokens

if TYPE_CHECKING:
    from ftk.run import Run

REFUSALS = (TemplateRefused, jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)
"""What rendering raises when a template cannot write a conversation; templates index and add as they like."""

FIELDS = ("messages", "tools", "add_generation_prompt", "template_kwargs")


def tokens_of(run: Run) -> dict[str, Any]:
    """The special tokens of the run's tokenizer as templates see them: ``bos_token`` …"""
    return dict(special_tokens(run.tokenizer))


def write(source: str, messages: Sequence[Mapping[str, Any]], *, tools: Any = None, **variables: Any) -> str:
    """What transformers' ``apply_chat_template`` renders. Raises one of REFUSALS."""
    # transformers passes documents, too, so that "documents is defined" holds
    return render_marked(source, messages, tools=tools, **{"documents": None, **variables})[0]


def rendered_lines(source: str, lines: Iterable[str], variables: Mapping[str, Any]) -> Iterator[str | dict[str, str]]:
    """For each line its text, or ``{"error": ...}``; empty lines are left out.

    variables: what the template sees in all lines; a line's own ``template_kwargs`` go before them.
    """
    for line in lines:
        if not line.strip():
            continue
        try:
            given = _request(line)
            kwargs = {**variables, **(given.get("template_kwargs") or {})}
            kwargs["add_generation_prompt"] = bool(given.get("add_generation_prompt"))
            yield write(source, with_reasoning(source, given["messages"]), tools=given.get("tools"), **kwargs)
        except REFUSALS as error:
            yield {"error": str(error) or type(error).__name__}


def with_reasoning(source: str, messages: Sequence[Any]) -> list[Any]:
    """The messages with ``reasoning_content`` also under the only key where the template looks for it (gpt-oss)."""
    keys = [key for key in ("reasoning", "thinking") if re.search(rf"\.{key}\b|\[[\"']{key}[\"']\]", source)]
    if "reasoning_content" in source or not keys:
        return list(messages)
    return [
        {keys[0]: one["reasoning_content"], **one} if isinstance(one, dict) and "reasoning_content" in one else one
        for one in messages
    ]


def _request(line: str) -> dict[str, Any]:
    """A line as JSON. Raises ValueError saying what it lacks."""
    given = json.loads(line)
    if not isinstance(given, dict) or not isinstance(given.get("messages"), list):
        raise ValueError(f'expected an object with a list of "messages", found {line.strip()[:60]}')
    return given
