"""The tool dialect of MiniCPM5: each call an XML element, each argument a child of it."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING, Any

from ftk_data.tools import ToolFormat, parameters_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ftk import ToolCall
    from ftk.types import Tools

CALL = re.compile(r'<function name="([^"]*)">')
PARAMETER = re.compile(r'<param name="([^"]*)">(?:<!\[CDATA\[(.*?)\]\]>|(.*?))</param>', re.DOTALL)


def read_calls(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`MINICPM5` writes them."""
    from ftk import ToolCall

    known = parameters_of(tools)
    calls: list[ToolCall] = []
    start = -1
    opening = CALL.search(text)
    while opening:
        arguments, end = _arguments(text, opening.end(), known.get(opening[1], {}))
        if text.startswith("</function>", end):
            start = opening.start() if start < 0 else start
            calls.append(ToolCall(opening[1], arguments))
        opening = CALL.search(text, end)
    return (text[:start].removesuffix("\n"), tuple(calls)) if calls else (text, ())


def _arguments(text: str, at: int, schemas: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The parameters that begin at a place, and where the last one ends."""
    arguments: dict[str, Any] = {}
    while found := PARAMETER.match(text, at):
        name, quoted, bare = found.groups()
        arguments[name] = quoted if quoted is not None else _value(bare, schemas.get(name) or {})
        at = found.end()
    return arguments, at


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """A value as its schema says. Without one, what looks like a number, a list and so on is taken for it."""
    types = schema.get("type") or ()
    if "string" in types:  # the name of a type, or a list of them
        return None if text == "None" and "null" in types else text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:  # the published template writes lists and objects as Python shows them
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return value if value is None or isinstance(value, bool | list | dict) else text


MINICPM5 = ToolFormat(
    "minicpm5",
    target="ftk_template_minicpm.tools:read_calls",
    summary="MiniCPM5: function elements with a param element for each argument",
    system=r"""
    {%- if system is not none %}
        {{- system + "\n\n" }}
    {%- endif %}
    {{- "# Tools\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nTool usage guidelines:\n- You may call zero or more functions. If no function calls are needed, just answer normally and do not include any <function ... </function>.\n- When calling a function, return an XML object within <function ... </function> using:\n" }}
    {{- '<function name="function-name"><param name="param-name">param-value</param></function>' }}
    {{- "\n- param-value may be multi-line. If it contains <, & or newline characters, wrap it in a CDATA block: " }}
    {{- '<param name="param-name"><![CDATA[...multi-line value...]]></param>' }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if "<function name=" in content %}
        {{- raise_exception("the text before it holds <function name=") }}
    {%- endif %}
    {{- content }}
    {%- for call in message.tool_calls %}
        {%- set call = call.function %}
        {%- if call.arguments is string or '"' in call.name %}
            {{- raise_exception("arguments are an object, and names hold no quotes") }}
        {%- endif %}
        {%- if content or not loop.first %}
            {{- "\n" }}
        {%- endif %}
        {{- '<function name="' ~ call.name ~ '">' }}
        {%- for name, value in call.arguments.items() %}
            {%- set text = value ~ "" %}
            {%- set quoted = value is string and ("<" in text or "&" in text or "\n" in text) %}
            {%- if '"' in name or (quoted and "]]>" in text) or (not quoted and "</param>" in text) %}
                {{- raise_exception(name ~ " holds what ends a parameter") }}
            {%- endif %}
            {{- '<param name="' ~ name ~ '">' }}
            {{- "<![CDATA[" ~ text ~ "]]>" if quoted else text }}
            {{- "</param>" }}
        {%- endfor %}
        {{- "</function>" }}
    {%- endfor %}""",
)
"""As the published template of MiniCPM5 writes it; arguments that could not be told apart again are refused."""
