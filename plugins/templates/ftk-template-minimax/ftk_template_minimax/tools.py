"""The two ways in which MiniMax models call tools: lines of JSON (M1), and a tag for each parameter (M2)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ftk_data.tools import ToolFormat, parameters_of

if TYPE_CHECKING:
    from ftk import ToolCall
    from ftk.types import Tools

MINIMAX1 = ToolFormat(
    "minimax1",
    target="ftk_template_minimax.tools:read_minimax1",
    summary="MiniMax-M1: a line of JSON for each call",
    system=r"""
    {{- system ~ "\n\n" if system else "" }}
    {{- "You are provided with these tools:\n<tools>\n" }}
    {%- for tool in tools %}
        {{- tool | tojson ~ "\n" }}
    {%- endfor %}
    {{- '</tools>\n\nIf you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide tool-name and json-object of arguments, following the format below:\n<tool_calls>\n{"name": <tool-name>, "arguments": <args-json-object>}\n...\n</tool_calls>' }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if "<tool_calls>" in content %}
        {{- raise_exception("<tool_calls> in the text before a call cannot be told from the call") }}
    {%- endif %}
    {{- (content ~ "\n" if content else "") ~ "<tool_calls>\n" }}
    {%- for call in message.tool_calls %}
        {%- set call = call.function %}
        {%- set arguments = call.arguments if call.arguments is string else call.arguments | tojson %}
        {{- '{"name": ' ~ call.name | tojson ~ ', "arguments": ' ~ arguments ~ "}\n" }}
    {%- endfor %}
    {{- "</tool_calls>" }}""",
    result=r"""{{- "tool result: " ~ content ~ "\n\n" }}""",
)

MINIMAX2 = ToolFormat(
    "minimax2",
    target="ftk_template_minimax.tools:read_minimax2",
    summary="MiniMax-M2: a tag for each call and each parameter",
    system=r"""
    {{- system or "" }}
    {{- "\n\n# Tools\nYou may call one or more tools to assist with the user query.\nHere are the tools available in JSONSchema format:\n\n<tools>\n" }}
    {%- for tool in tools %}
        {{- "<tool>" ~ (tool.function or tool) | tojson ~ "</tool>\n" }}
    {%- endfor %}
    {{- '</tools>\n\nWhen making tool calls, use XML format to invoke tools and pass parameters:\n\n<minimax:tool_call>\n<invoke name="tool-name-1">\n<parameter name="param-key-1">param-value-1</parameter>\n<parameter name="param-key-2">param-value-2</parameter>\n...\n</invoke>\n</minimax:tool_call>' }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if "<minimax:tool_call>" in content %}
        {{- raise_exception("<minimax:tool_call> in the text before a call cannot be told from the call") }}
    {%- endif %}
    {{- content ~ "\n<minimax:tool_call>\n" }}
    {%- for call in message.tool_calls %}
        {%- set name, arguments = call.function.name, call.function.arguments %}
        {%- if arguments is not mapping or '">' in name %}
            {{- raise_exception('a call needs a name without "> and arguments by name, found ' ~ call.function) }}
        {%- endif %}
        {{- '<invoke name="' ~ name ~ '">\n' }}
        {%- for key, value in arguments | items %}
            {%- set shown = value if value is string else value | tojson %}
            {%- if "</parameter>" in shown or '">' in key %}
                {{- raise_exception("parameter " ~ key ~ " holds the tag that ends it: " ~ shown) }}
            {%- endif %}
            {{- '<parameter name="' ~ key ~ '">' ~ shown ~ "</parameter>\n" }}
        {%- endfor %}
        {{- "</invoke>\n" }}
    {%- endfor %}
    {{- "</minimax:tool_call>" }}""",
    result="<response>{{ content }}</response>",
)

INVOKE = re.compile(
    r"<invoke name=\"((?:(?!\">).)*)\">\s*"
    r"((?:<parameter name=\"(?:(?!\">).)*\">(?:(?!</parameter>).)*</parameter>\s*)*)</invoke>\s*",
    re.DOTALL,
)
PARAMETER = re.compile(r"<parameter name=\"((?:(?!\">).)*)\">((?:(?!</parameter>).)*)</parameter>", re.DOTALL)


def read_minimax1(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`MINIMAX1` writes them."""
    content, mark, inside = text.partition("<tool_calls>")
    calls = tuple(_json_calls(inside)) if mark else ()
    return (content.removesuffix("\n"), calls) if calls else (text, ())


def _json_calls(text: str) -> Iterator[ToolCall]:
    """The calls up to the first thing that is none. JSON says where it ends, so a tag in its strings does no harm."""
    from ftk import ToolCall

    left = text.lstrip()
    while left.startswith("{"):
        try:
            one, end = json.JSONDecoder().raw_decode(left)
        except json.JSONDecodeError:
            return
        if isinstance(one.get("name"), str) and isinstance(one.get("arguments"), dict):
            yield ToolCall(one["name"], one["arguments"])
        left = left[end:].lstrip()


def read_minimax2(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`MINIMAX2` writes them."""
    from ftk import ToolCall

    content, mark, left = text.partition("<minimax:tool_call>")
    known = parameters_of(tools)
    calls = []
    left = left.lstrip()
    while mark and (found := INVOKE.match(left)):
        name, inside = found.groups()
        schemas = known.get(name, {})
        given = {key: typed(value, schemas.get(key)) for key, value in PARAMETER.findall(inside)}
        calls.append(ToolCall(name, given))
        left = left[found.end() :]
    return (content.removesuffix("\n"), tuple(calls)) if calls else (text, ())


def typed(text: str, schema: Any) -> Any:
    """The value that ``text`` stands for: a string where the schema says so, else JSON, else a string after all."""
    if isinstance(schema, Mapping) and "string" in (schema.get("type") or ()):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
