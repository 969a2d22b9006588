"""Tools and calls of Granite: a JSON list after a control token in 3.0, Hermes' tags in 4.0."""

from __future__ import annotations

import json
from dataclasses import replace

from ftk_data.tools import HERMES, ToolFormat

GRANITE3 = ToolFormat(
    "granite3",
    target="ftk_template_granite.tools:read",
    summary="Granite 3.0: a JSON list of calls after <|tool_call|>",
    system=r"""
    {%- if system %}
        {{- system + "\n\n" }}
    {%- endif %}
    {%- for tool in tools %}
        {{- "\n\n" if not loop.first }}
        {{- tool | tojson(indent=4) }}
    {%- endfor %}""",
    answer=r"""
    {%- if "<|tool_call|>" in content %}
        {{- raise_exception("the content holds <|tool_call|>, which starts calls") }}
    {%- endif %}
    {{- content ~ "<|tool_call|>[" }}
    {%- for call in message.tool_calls %}
        {%- set given = call.function.arguments %}
        {{- ", " if not loop.first }}
        {{- '{"name": ' ~ call.function.name | tojson ~ ', "arguments": ' }}
        {{- given if given is string else given | tojson }}
        {{- "}" }}
    {%- endfor %}
    {{- "]" }}""",
)

GRANITE4 = replace(
    HERMES,
    name="granite4",
    summary="Granite 4.0: JSON between tool_call tags",
    system=r"""
    {%- if system %}
        {{- system + "\n\n" }}
    {%- endif %}
    {{- "You are a helpful assistant with access to the following tools. You may call one or more tools to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" + (tool | tojson) }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor each tool call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>. If a tool does not exist in the provided list of tools, notify the user that you do not have the ability to fulfill the request." }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if "<tool_call>" in content %}
        {{- raise_exception("the content holds <tool_call>, which starts a call") }}
    {%- endif %}
    {{- content }}
    {%- for call in message.tool_calls %}
        {%- set given = call.function.arguments %}
        {{- "\n" if content or not loop.first }}
        {{- '<tool_call>\n{"name": ' ~ call.function.name | tojson ~ ', "arguments": ' }}
        {{- given if given is string else given | tojson }}
        {{- "}\n</tool_call>" }}
    {%- endfor %}""",
)


def read(text, tools=()):
    """Calls as :data:`GRANITE3` writes them; a list that is cut short is text."""
    from ftk import ToolCall

    content, start, listed = text.partition("<|tool_call|>")
    try:
        found, _ = json.JSONDecoder().raw_decode(listed.lstrip()) if start else ([], 0)
    except json.JSONDecodeError:
        return text, ()
    named = [one for one in found if isinstance(one, dict) and isinstance(one.get("name"), str)]
    calls = tuple(ToolCall(one["name"], one.get("arguments") or {}) for one in named)
    return (content, calls) if calls else (text, ())
