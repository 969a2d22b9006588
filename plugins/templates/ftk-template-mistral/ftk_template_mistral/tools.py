"""Calls as the Mistral families write them after ``[TOOL_CALLS]``: one list of JSON, or a mark for each call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ftk_data.tools import ToolFormat

if TYPE_CHECKING:
    from ftk import ToolCall
    from ftk.types import Tools

MARK = "[TOOL_CALLS]"
HEAD = re.compile(r"\s*([^\[\]]*)(?:\[CALL_ID\]([^\[\]]*))?\[ARGS\]\s*")


def read_list(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """The calls of ``[TOOL_CALLS] [{"name": ..., "arguments": {...}}]``, with or without ids and spaces."""
    from ftk import ToolCall

    content, mark, rest = text.partition(MARK)
    try:
        listed = json.loads(rest) if mark else None
    except json.JSONDecodeError:
        listed = None
    if not isinstance(listed, list) or not listed or not all(_is_call(one) for one in listed):
        return text, ()
    return content, tuple(ToolCall(one["name"], one.get("arguments") or {}, one.get("id")) for one in listed)


def _is_call(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("arguments", {}), dict)


def read_marked(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """The calls of ``[TOOL_CALLS]name[ARGS]{...}``, with or without ``[CALL_ID]`` between."""
    content, mark, rest = text.partition(MARK)
    calls = list(_marked(mark + rest))
    if not calls or None in calls:
        return text, ()
    return content, tuple(call for call in calls if call)


def _marked(text: str) -> Iterator[ToolCall | None]:
    """Each call; None where the text is not one, and the end then."""
    from ftk import ToolCall

    decoder = json.JSONDecoder()
    at = 0
    while text[at:].strip():
        head = HEAD.match(text, at + len(MARK)) if text.startswith(MARK, at) else None
        try:
            arguments, at = decoder.raw_decode(text, head.end()) if head else (None, at)
        except json.JSONDecodeError:
            arguments = None
        if head is None or not isinstance(arguments, dict):
            yield None
            return
        yield ToolCall(head[1], arguments, head[2])


MISTRAL = ToolFormat(
    "mistral",
    target="ftk_template_mistral.tools:read_list",
    summary="Mistral v0.3: a list of JSON calls after [TOOL_CALLS]",
    system=r"""
    {{- (system or '') ~ '[AVAILABLE_TOOLS] [' }}
    {%- for tool in tools %}
        {{- ', ' if not loop.first }}
        {{- (tool if tool.function else {'type': 'function', 'function': tool}) | tojson }}
    {%- endfor %}
    {{- '][/AVAILABLE_TOOLS]' }}""",
    answer=r"""
    {%- if '[TOOL_CALLS]' in content %}
        {{- raise_exception('the text beside a call must not hold [TOOL_CALLS]') }}
    {%- endif %}
    {{- content ~ '[TOOL_CALLS] [' }}
    {%- for call in message.tool_calls %}
        {%- set arguments = call.function.arguments %}
        {{- ', ' if not loop.first }}
        {{- '{"name": ' ~ call.function.name | tojson ~ ', "arguments": ' }}
        {{- (arguments if arguments is string else arguments | tojson) ~ '}' }}
    {%- endfor %}
    {{- ']' }}""",
    result=r"""{{- '{"content": ' ~ content ~ '}' }}""",
)
"""The ids that the published template writes as well are left out: a model can only make them up."""

MINISTRAL = replace(
    MISTRAL,
    name="ministral",
    summary="Ministral: the calls of mistral without the space after [TOOL_CALLS]",
    answer=MISTRAL.answer.replace("[TOOL_CALLS] [", "[TOOL_CALLS]["),
)

DEVSTRAL = ToolFormat(
    "devstral",
    target="ftk_template_mistral.tools:read_marked",
    summary="Devstral: [TOOL_CALLS], the name, [ARGS] and JSON for each call",
    system=r"""{{- (system or '') ~ '[AVAILABLE_TOOLS]' ~ tools | tojson ~ '[/AVAILABLE_TOOLS]' }}""",
    answer=r"""
    {%- if '[TOOL_CALLS]' in content %}
        {{- raise_exception('the text beside a call must not hold [TOOL_CALLS]') }}
    {%- endif %}
    {{- content }}
    {%- for call in message.tool_calls %}
        {%- set name, arguments = call.function.name, call.function.arguments %}
        {%- if '[' in name ~ call.id or ']' in name ~ call.id or name != name.strip() %}
            {{- raise_exception('a tool name or call id must not hold [ or ], nor space at its ends: ' ~ name) }}
        {%- endif %}
        {{- '[TOOL_CALLS]' ~ name ~ '[ARGS]' ~ (arguments if arguments is string else arguments | tojson) }}
    {%- endfor %}""",
)

MISTRAL_SMALL = replace(
    DEVSTRAL,
    name="mistral_small",
    summary="Mistral Small 3.1 and 3.2: the calls of devstral, each with its id",
    answer=DEVSTRAL.answer.replace("'[ARGS]'", "'[CALL_ID]' ~ call.id ~ '[ARGS]'"),
)
