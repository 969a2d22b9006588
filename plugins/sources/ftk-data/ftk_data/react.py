"""Tools for models that were never taught any: the words of ReAct (Yao et al. 2022), one Action line for each call."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ftk_data.tools import ToolFormat

if TYPE_CHECKING:
    from ftk import ToolCall
    from ftk.types import Tools

CALL = re.compile(r"(?:^|\n)Action: *([^\n]+)\nAction Input: *")
THOUGHT_END = "</think>\n\n"


def read_calls(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`DEFAULT` writes them. What a model says after its last call is left out."""
    from ftk import ToolCall

    for first in CALL.finditer(text):
        calls: list[ToolCall] = []
        found: re.Match[str] | None = first
        while found and (read := _arguments(text, found.end())):
            calls.append(ToolCall(found[1].strip(), read[0]))
            found = CALL.match(text, read[1])
        if calls:
            return text[: first.start()] + ("\n" if text[: first.start() + 1].endswith(THOUGHT_END) else ""), (*calls,)
    return text, ()


def _arguments(text: str, at: int) -> tuple[dict[str, Any], int] | None:
    """The JSON object that starts at a place, and where it ends."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, at)
    except json.JSONDecodeError:
        return None
    return (value, end) if isinstance(value, dict) else None


DEFAULT = ToolFormat(
    "default",
    target="ftk_data.react:read_calls",
    summary="ReAct, in plain words: Action and Action Input; for models that know no dialect",
    system=r"""
    {{- system or "" }}
    {{- "You have access to the following tools:\n" }}
    {%- set known = namespace(names=[]) %}
    {%- for tool in tools %}
        {%- set tool = tool.function or tool %}
        {%- set known.names = known.names + [tool.name] %}
        {{- "> Tool Name: " ~ tool.name ~ "\nTool Description: " ~ (tool.description or "") ~ "\nTool Args:\n" }}
        {%- set required = (tool.parameters or {}).required or [] %}
        {%- for name, one in ((tool.parameters or {}).properties or {}).items() %}
            {{- "  - " ~ name ~ " (" ~ one.type ~ (", required" if name in required else "") ~ "): " }}
            {{- one.description or "" }}
            {%- if one.enum %}
                {{- ", should be one of [" ~ one.enum | join(", ") ~ "]" }}
            {%- endif %}
            {%- if one.get("items") %}
                {{- ", where each item should be " ~ one.get("items").type }}
            {%- endif %}
            {{- "\n" }}
        {%- endfor %}
        {{- "\n" }}
    {%- endfor %}
    {{- "Use the following format if using a tool:\n```\nAction: tool name (one of [" ~ known.names | join(", ") }}
    {{- "])\nAction Input: the input to the tool, in a JSON format representing the kwargs " }}
    {{- '(e.g. ```{"input": "hello world", "num_beams": 5}```)\n```\n' }}""",
    answer=r"""
    {%- if "\nAction:" in "\n" ~ content or content.endswith("</think>\n") %}
        {{- raise_exception("the text before it ends with </think> or holds a line that begins with Action:") }}
    {%- endif %}
    {{- content }}
    {%- for call in message.tool_calls %}
        {%- set name = call.function.name %}
        {%- if not name or "\n" in name or name != name.strip() %}
            {{- raise_exception("the name of a tool is one line without spaces around it") }}
        {%- endif %}
        {%- if not loop.first or content and not content.endswith("</think>\n\n") %}
            {{- "\n" }}
        {%- endif %}
        {{- "Action: " ~ name ~ "\nAction Input: " }}
        {%- if call.function.arguments is string %}
            {{- call.function.arguments }}
        {%- else %}
            {{- call.function.arguments | tojson }}
        {%- endif %}
    {%- endfor %}""",
)
"""The dialect of LLaMA-Factory for all templates that have none of their own, word by word."""
