"""Tools and calls as Hy3 writes them: one tag a key, one a value. Strings stand bare; the schema tells them apart."""

from __future__ import annotations

import json
import re

from ftk_data.tools import ToolFormat, parameters_of

HY3 = ToolFormat(
    "hy3",
    target="ftk_template_hunyuan.tools:read",
    summary="Hy3: keys and values in tags",
    system=r"""
    {%- if system %}
        {{- system + "\n\n" }}
    {%- endif %}
    {{- "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" + (tool | tojson) }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor function call returns, you should first print <tool_calls:opensource>\nFor each function call, you should return object like:\n<tool_call:opensource>{function-name}<tool_sep:opensource>\n<arg_key:opensource>{arg-key-1}</arg_key:opensource>\n<arg_value:opensource>{arg-value-1}</arg_value:opensource>\n<arg_key:opensource>{arg-key-2}</arg_key:opensource>\n<arg_value:opensource>{arg-value-2}</arg_value:opensource>\n...\n</tool_call:opensource>\nAt the end of function call returns, you should print </tool_calls:opensource>" }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if "<tool_calls:opensource>" in content %}
        {{- raise_exception("the content holds <tool_calls:opensource>, which starts calls") }}
    {%- endif %}
    {{- content ~ "<tool_calls:opensource>\n" }}
    {%- for call in message.tool_calls %}
        {%- if "<tool_sep:opensource>" in call.function.name %}
            {{- raise_exception("the name of a function holds <tool_sep:opensource>") }}
        {%- endif %}
        {{- "<tool_call:opensource>" ~ call.function.name ~ "<tool_sep:opensource>\n" }}
        {%- for key, value in call.function.arguments.items() %}
            {%- set shown = value if value is string else value | tojson %}
            {%- if "</arg_key:opensource>" in key or "</arg_value:opensource>" in shown %}
                {{- raise_exception("argument " ~ key ~ " holds a closing tag of the dialect") }}
            {%- endif %}
            {{- "<arg_key:opensource>" ~ key ~ "</arg_key:opensource>\n" }}
            {{- "<arg_value:opensource>" ~ shown ~ "</arg_value:opensource>\n" }}
        {%- endfor %}
        {{- "</tool_call:opensource>\n" }}
    {%- endfor %}
    {{- "</tool_calls:opensource>" }}""",
    result=r"""{{- "<tool_response:opensource>\n" ~ content ~ "\n</tool_response:opensource>" }}""",
)

CALL = re.compile(r"\s*<tool_call:opensource>(.*?)<tool_sep:opensource>", re.DOTALL)
PAIR = re.compile(
    r"\s*<arg_key:opensource>(.*?)</arg_key:opensource>\s*<arg_value:opensource>(.*?)</arg_value:opensource>", re.DOTALL
)
END = re.compile(r"\s*</tool_call:opensource>")


def read(text, tools=()):
    """Calls as :data:`HY3` writes them; one that is cut short ends the list."""
    from ftk import ToolCall

    known = parameters_of(tools)
    content, start, _ = text.partition("<tool_calls:opensource>")
    calls = []
    at = len(content) + len(start)
    while opening := CALL.match(text, at):
        name, at = opening[1], opening.end()
        schemas = known.get(name, {})
        arguments = {}
        while pair := PAIR.match(text, at):
            arguments[pair[1]] = typed(pair[2], schemas.get(pair[1], {}))
            at = pair.end()
        closing = END.match(text, at)
        if not closing:
            break
        calls.append(ToolCall(name, arguments))
        at = closing.end()
    return (content, tuple(calls)) if calls else (text, ())


def typed(text, schema):
    """The value that a text stands for: itself where the schema says string only, else JSON where it is some.

    A string never stands in quotes, so what reads as a JSON string is the text with its quotes.
    """
    if schema.get("type") in ("string", ["string"]):
        return text
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
    return text if isinstance(value, str) else value


def _refuse(name):
    """NaN and its kind are no JSON."""
    raise ValueError(name)
