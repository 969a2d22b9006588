"""Gemma 4's dialect: declarations, calls and results in braces, strings between ``<|"|>``, names without quotes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk_data.tools import ToolFormat

if TYPE_CHECKING:
    from ftk import ToolCall
    from ftk.types import Tools

QUOTE = '<|"|>'
HEAD = re.compile(r"<\|tool_call>call:([^{]*)(?={)")
BARE = re.compile(r"true|false|null|None|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
WORDS = {"true": True, "false": False, "null": None, "None": None}


def read(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """The content before the calls, and the calls. A ``<|tool_response>`` after them is the end of the turn."""
    from ftk import ToolCall

    content, mark, _ = text.removesuffix("<|tool_response>").partition("<|tool_call>")
    end = len(text.removesuffix("<|tool_response>"))
    at = len(content)
    calls = []
    try:
        while mark and at < end:
            head = _match(HEAD, text, at)
            arguments, at = _value(text, head.end())
            at = _past(text, at, "<tool_call|>")
            calls.append(ToolCall(head[1], arguments))
    except ValueError:
        return text, ()
    return (content, tuple(calls)) if calls else (text, ())


def _value(text: str, at: int) -> tuple[Any, int]:
    """The value that starts at ``at``, and where it ends. Raises ValueError when there is none."""
    if text.startswith(QUOTE, at):
        end = text.index(QUOTE, at + len(QUOTE))
        return text[at + len(QUOTE) : end], end + len(QUOTE)
    if text.startswith("{", at):
        return _mapping(text, at + 1)
    if text.startswith("[", at):
        return _sequence(text, at + 1)
    bare = _match(BARE, text, at)
    return WORDS[bare[0]] if bare[0] in WORDS else json.loads(bare[0]), bare.end()


def _mapping(text: str, at: int) -> tuple[dict[str, Any], int]:
    read: dict[str, Any] = {}
    while not text.startswith("}", at):
        at = _past(text, at, ",") if read else at
        if text.startswith(QUOTE, at):
            key, end = _value(text, at)
        else:
            end = text.index(":", at)
            key = text[at:end]
        read[key], at = _value(text, _past(text, end, ":"))
    return read, at + 1


def _sequence(text: str, at: int) -> tuple[list[Any], int]:
    read: list[Any] = []
    while not text.startswith("]", at):
        one, at = _value(text, _past(text, at, ",") if read else at)
        read.append(one)
    return read, at + 1


def _past(text: str, at: int, mark: str) -> int:
    if not text.startswith(mark, at):
        raise ValueError(f"no {mark} at {at}")
    return at + len(mark)


def _match(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    found = pattern.match(text, at)
    if not found:
        raise ValueError(f"nothing known at {at}")
    return found


MACROS = Path(__file__).with_name("gemma4.jinja").read_text(encoding="utf-8").partition("{#- Now")[0]

GEMMA4 = ToolFormat(
    "gemma4",
    target="ftk_template_gemma.tools:read",
    summary="Gemma 4: calls in braces, strings between quotes of their own",
    system=MACROS
    + r"""
    {{- system or '' }}
    {%- for tool in tools %}
        {{- declaration(tool) }}
    {%- endfor %}""",
    answer=MACROS
    + r"""
    {%- if '<|tool_call>' in content %}
        {{- raise_exception('the text beside a call must not hold <|tool_call>') }}
    {%- endif %}
    {{- content ~ written_calls(message.tool_calls) }}""",
)
