"""The tool dialect of Nemotron 3: tools and calls in XML, each argument on lines of its own, texts without quotes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ftk_data.tools import ToolFormat, parameters_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ftk import ToolCall
    from ftk.types import Tools

CALL = re.compile(r"<tool_call>\n<function=([^>\n]+)>\n")
PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n(.*?)\n</parameter>\n", re.DOTALL)
CLOSING = "</function>\n</tool_call>"
PYTHON_NAMES = {"True": True, "False": False, "None": None}
"""What the published template writes for JSON's true, false and null."""


def read_calls(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`NEMOTRON3` writes them."""
    from ftk import ToolCall

    known = parameters_of(tools)
    calls: list[ToolCall] = []
    start = -1
    opening = CALL.search(text)
    while opening:
        arguments, end = _arguments(text, opening.end(), known.get(opening[1], {}))
        if text.startswith(CLOSING, end):
            start = opening.start() if start < 0 else start
            calls.append(ToolCall(opening[1], arguments))
        opening = CALL.search(text, end)
    return (text[:start].removesuffix("\n"), tuple(calls)) if calls else (text, ())


def _arguments(text: str, at: int, schemas: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The parameters that begin at a place, and where the last one ends."""
    arguments: dict[str, Any] = {}
    while found := PARAMETER.match(text, at):
        arguments[found[1]] = _value(found[2], schemas.get(found[1]) or {})
        at = found.end()
    return arguments, at


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """A value as its schema says. Without one, what looks like a number, a list and so on is taken for it."""
    types = schema.get("type") or ()
    if "string" in types:  # the name of a type, or a list of them
        return None if text == "None" and "null" in types else text
    try:
        return PYTHON_NAMES[text] if text in PYTHON_NAMES else json.loads(text)
    except (ValueError, RecursionError):
        return text


NEMOTRON3 = ToolFormat(
    "nemotron3",
    target="ftk_template_nemotron.tools:read_calls",
    summary="Nemotron 3: XML, each argument on lines of its own",
    system=r"""
    {%- macro rest(given, known) %}
        {%- for key, value in (given or {}).items() if key not in known %}
            {{- "\n<" ~ key ~ ">" ~ (value | string if value is string or value is not iterable else value | tojson) }}
            {{- "</" ~ key ~ ">" }}
        {%- endfor %}
    {%- endmacro %}
    {{- system + "\n\n" if system else "" }}
    {{- "# Tools\n\nYou have access to the following functions:\n\n<tools>" }}
    {%- for tool in tools %}
        {%- set tool = tool.function or tool %}
        {%- set parameters = tool.parameters or {} %}
        {{- "\n<function>\n<name>" ~ tool.name ~ "</name>" }}
        {%- if tool.description is defined %}
            {{- "\n<description>" ~ tool.description | trim ~ "</description>" }}
        {%- endif %}
        {{- "\n<parameters>" }}
        {%- for name, one in (parameters.properties or {}).items() %}
            {{- "\n<parameter>\n<name>" ~ name ~ "</name>" }}
            {%- if one.type is defined %}
                {{- "\n<type>" ~ one.type ~ "</type>" }}
            {%- endif %}
            {%- if one.description is defined %}
                {{- "\n<description>" ~ one.description | trim ~ "</description>" }}
            {%- endif %}
            {%- if one.enum is defined %}
                {{- "\n<enum>" ~ one.enum | tojson ~ "</enum>" }}
            {%- endif %}
            {{- rest(one, ["name", "type", "description", "enum"]) ~ "\n</parameter>" }}
        {%- endfor %}
        {{- rest(parameters, ["type", "properties", "required"]) }}
        {%- if parameters.required is defined %}
            {{- "\n<required>" ~ parameters.required | tojson ~ "</required>" }}
        {%- endif %}
        {{- "\n</parameters>" ~ rest(tool, ["type", "name", "description", "parameters"]) ~ "\n</function>" }}
    {%- endfor %}
    {{- "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags\n- Required parameters MUST be specified\n- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after\n- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user about function calls\n</IMPORTANT>" }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if "<tool_call>" in content %}
        {{- raise_exception("the text before it holds <tool_call>") }}
    {%- endif %}
    {{- content ~ "\n" if content }}
    {%- for call in message.tool_calls %}
        {%- set call = call.function %}
        {%- if call.arguments is string %}
            {{- raise_exception("the arguments of a call are an object here, not text") }}
        {%- endif %}
        {%- for name in [call.name] + call.arguments | list %}
            {%- if not name or ">" in name or "\n" in name %}
                {{- raise_exception("a name with > or more lines cannot be written: " ~ name) }}
            {%- endif %}
        {%- endfor %}
        {{- "<tool_call>\n<function=" ~ call.name ~ ">\n" }}
        {%- for name, value in call.arguments.items() %}
            {%- set text = value | tojson if value is iterable and value is not string else value | string %}
            {%- if "</parameter>" in text %}
                {{- raise_exception(name ~ " holds </parameter>, which ends it") }}
            {%- endif %}
            {{- "<parameter=" ~ name ~ ">\n" ~ text ~ "\n</parameter>\n" }}
        {%- endfor %}
        {{- "</function>\n</tool_call>\n" }}
    {%- endfor %}""",
)
"""As the published template of Nemotron 3 Nano writes it; arguments that could not be told apart again are refused."""
