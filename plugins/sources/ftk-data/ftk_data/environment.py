"""Jinja as chat templates use it: the sandbox, filters and globals that transformers gives them, and marked answers.

Why not transformers' own functions: they are private, cost a validation per call, and this one runs twice a turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

OPEN, CLOSE = "\ue0f0\ue0f2", "\ue0f1\ue0f2"
"""Around what a ``{% generation %}`` block writes: private-use characters that no text holds, checked by the caller."""


class TemplateRefused(Exception):
    """A chat template called ``raise_exception``."""


class Marked(jinja2.ext.Extension):
    """``{% generation %} ... {% endgeneration %}``: what the assistant writes, put between OPEN and CLOSE."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: Any) -> nodes.CallBlock:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{OPEN}{caller()}{CLOSE}"


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which a model must not see
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateRefused(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


@lru_cache(maxsize=32)
def compiled(source: str) -> jinja2.Template:
    """The compiled template. Raises jinja2.TemplateSyntaxError."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Marked, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: _strftime_now(form)
    return environment.from_string(source)


def render_marked(
    source: str, messages: Sequence[Mapping[str, Any]], **variables: Any
) -> tuple[str, list[tuple[int, int]]]:
    """Render and say which stretches ``generation`` blocks wrote, as (start, end) in characters.

    Raises TemplateRefused, and jinja2 and Python errors for whatever a template trips over.
    """
    text = compiled(source).render(messages=messages, **variables)
    if OPEN not in text:
        return text, []
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    length = 0
    for number, part in enumerate(text.split(OPEN)):
        marked, _, rest = part.partition(CLOSE) if number else ("", "", part)
        if number:
            spans.append((length, length + len(marked)))
        parts += (marked, rest)
        length += len(marked) + len(rest)
    return "".join(parts), spans
