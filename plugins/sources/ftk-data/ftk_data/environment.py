"""Jinja as chat templates use it: the sandbox, filters and globals that transformers gives them, and marked answers.

Why not transformers' own functions: they are private, cost a validation per call, and a conversation may need several
renders.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

_SECRET = secrets.token_hex(8)
OPEN, CLOSE = f"\ue0f0{_SECRET}\ue0f2", f"\ue0f1{_SECRET}\ue0f2"
"""Around what a ``{% generation %}`` block writes until the render is done. New in each process: no text holds it."""


class TemplateRefused(Exception):
    """A chat template called ``raise_exception``."""


RENDER_ERRORS = (
    TemplateRefused, jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip
"""What a template may trip over; it is a program that somebody else wrote."""


class Marked(jinja2.ext.Extension):
    """``{% generation %} ... {% endgeneration %}``: what the assistant writes, put between OPEN and CLOSE."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: Any) -> nodes.Node:
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


_now: ContextVar[datetime | None] = ContextVar("ftk_data_now", default=None)


@contextmanager
def one_moment() -> Iterator[None]:
    """All renders inside see the same time, so that a prompt and the conversation that it begins are alike."""
    token = _now.set(_now.get() or datetime.now())
    try:
        yield
    finally:
        _now.reset(token)


def _strftime_now(form: str) -> str:
    return (_now.get() or datetime.now()).strftime(form)


@lru_cache(maxsize=1)
def environment() -> ImmutableSandboxedEnvironment:
    """The environment of all chat templates."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Marked, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = lambda form: _strftime_now(form)
    return made


@lru_cache(maxsize=128)
def compiled(source: str) -> jinja2.Template:
    """The compiled template. Raises jinja2.TemplateSyntaxError."""
    return quick(environment().from_string(source))


def quick(template: jinja2.Template) -> jinja2.Template:
    """The template with its globals in a plain dict, which is copied for each render: a third of a short one's time."""
    template.globals = dict(template.globals)
    return template


def render_marked(
    source: str, messages: Sequence[Mapping[str, Any]], **variables: Any
) -> tuple[str, list[tuple[int, int]]]:
    """Render and say which stretches ``generation`` blocks wrote, as (start, end) in characters.

    Raises one of RENDER_ERRORS for whatever a template trips over.
    """
    return unmarked(compiled(source).render(messages=messages, **variables))


def unmarked(text: str, offset: int = 0) -> tuple[str, list[tuple[int, int]]]:
    """A render without OPEN and CLOSE, and what stood between them; ``offset`` is added to the places.

    Of a block inside another only the outer one counts.
    """
    if OPEN not in text:
        return text, []
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    length, depth, start = offset, 0, 0
    for number, piece in enumerate(text.split(OPEN)):
        if number:
            depth += 1
            if depth == 1:
                start = length
        for count, part in enumerate(piece.split(CLOSE)):
            if count:
                depth -= 1
                if depth == 0:
                    spans.append((start, length))
            parts.append(part)
            length += len(part)
    return "".join(parts), spans
