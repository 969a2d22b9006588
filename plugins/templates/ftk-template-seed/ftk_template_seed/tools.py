"""Calls of Seed-OSS: a tag for each parameter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ftk_data.tools import ToolFormat, parameters_of

if TYPE_CHECKING:
    from ftk import ToolCall
    from ftk.types import Tools

SEED_OSS = ToolFormat(
    "seed_oss",
    target="ftk_template_seed.tools:read_seed_oss",
    summary="Seed-OSS: a tag for each parameter; tools as JSON",
    system=r"""
    {{- "You are Doubao, a helpful AI assistant. You may call one or more functions to assist with the user query." if system is none else system }}
    {{- "\nTool List:\nYou are authorized to use the following tools (described in JSON Schema format). Before performing any task, you must decide how to call them based on the descriptions and parameters of these tools.\n" }}
    {{- tools | tojson }}
    {{- "\n工具调用请遵循如下格式:\n<seed:tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>value_1</parameter>\n<parameter=example_parameter_2>This is the value for the second parameter\nthat can span\nmultiple lines</parameter>\n</function>\n</seed:tool_call>\n" }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {{- content }}
    {%- if "<seed:tool_call>" in content %}
        {{- raise_exception("<seed:tool_call> in the text before a call cannot be told from the call") }}
    {%- endif %}
    {%- for call in message.tool_calls %}
        {%- set name, arguments = call.function.name, call.function.arguments %}
        {%- if arguments is not mapping or not name or ">" in name or "\n" in name %}
            {{- raise_exception("a call needs a name without > and arguments by name, found " ~ call.function) }}
        {%- endif %}
        {{- ("\n" if not loop.first else "\n\n" if content else "") ~ "<seed:tool_call>\n<function=" ~ name ~ ">\n" }}
        {%- for key, value in arguments | items %}
            {%- set shown = value if value is string else value | tojson %}
            {%- if "</parameter>" in shown or ">" in key or "\n" in key %}
                {{- raise_exception("parameter " ~ key ~ " holds the tag that ends it: " ~ shown) }}
            {%- endif %}
            {{- "<parameter=" ~ key ~ ">" ~ shown ~ "</parameter>\n" }}
        {%- endfor %}
        {{- "</function>\n</seed:tool_call>" }}
    {%- endfor %}""",
)

CALL = re.compile(
    r"<seed:tool_call>\s*<function=([^>\n]+)>\s*"
    r"((?:<parameter=[^>\n]*>(?:(?!</parameter>).)*</parameter>\s*)*)</function>\s*</seed:tool_call>",
    re.DOTALL,
)
PARAMETER = re.compile(r"<parameter=([^>\n]*)>((?:(?!</parameter>).)*)</parameter>", re.DOTALL)


def read_seed_oss(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`SEED_OSS` writes them."""
    from ftk import ToolCall

    found = list(CALL.finditer(text))
    if not found:
        return text, ()
    known = parameters_of(tools)
    calls = []
    for name, inside in (one.groups() for one in found):
        schemas = known.get(name, {})
        given = {key: typed(value, schemas.get(key)) for key, value in PARAMETER.findall(inside)}
        calls.append(ToolCall(name, given))
    return text[: found[0].start()].removesuffix("\n\n"), tuple(calls)


def typed(text: str, schema: Any) -> Any:
    """The value that ``text`` stands for: a string where the schema says so, else JSON, else a string after all."""
    if isinstance(schema, Mapping) and "string" in (schema.get("type") or ()):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
