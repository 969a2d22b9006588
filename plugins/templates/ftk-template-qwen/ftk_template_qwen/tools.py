"""The two ways in which Qwen models call tools: JSON up to Qwen3, tags from Qwen3.5 on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ftk_data.tools import HERMES, ToolFormat, parameters_of

if TYPE_CHECKING:
    from ftk import ToolCall
    from ftk.types import Tools

QWEN = replace(HERMES, name="qwen", summary="Qwen2.5 and Qwen3: JSON between tool_call tags (the same as hermes)")

QWEN3_5 = ToolFormat(
    "qwen3_5",
    target="ftk_template_qwen.tools:read_qwen3_5",
    summary="Qwen3.5: a tag for each parameter",
    system=r"""
    {{- "# Tools\n\nYou have access to the following functions:\n\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" ~ tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags\n- Required parameters MUST be specified\n- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after\n- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user about function calls\n</IMPORTANT>" }}
    {%- if system %}
        {{- "\n\n" ~ system }}
    {%- endif %}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {{- content }}
    {%- if "<tool_call>" in content %}
        {{- raise_exception("<tool_call> in the text before a call cannot be told from the call") }}
    {%- endif %}
    {%- for call in message.tool_calls %}
        {%- set name, arguments = call.function.name, call.function.arguments %}
        {%- if arguments is not mapping or not name or ">" in name or "\n" in name %}
            {{- raise_exception("a call needs a name without > and arguments by name, found " ~ call.function) }}
        {%- endif %}
        {{- ("\n" if not loop.first else "\n\n" if content else "") ~ "<tool_call>\n<function=" ~ name ~ ">\n" }}
        {%- for key, value in arguments | items %}
            {%- set shown = value | tojson if value is iterable and value is not string else value | string %}
            {%- if "</parameter>" in shown or ">" in key or "\n" in key %}
                {{- raise_exception("parameter " ~ key ~ " holds the tag that ends it: " ~ shown) }}
            {%- endif %}
            {{- "<parameter=" ~ key ~ ">\n" ~ shown ~ "\n</parameter>\n" }}
        {%- endfor %}
        {{- "</function>\n</tool_call>" }}
    {%- endfor %}""",
)

CALL = re.compile(
    r"<tool_call>\s*<function=([^>\n]+)>\s*"
    r"((?:<parameter=[^>\n]*>(?:(?!</parameter>).)*</parameter>\s*)*)</function>\s*</tool_call>",
    re.DOTALL,
)
PARAMETER = re.compile(r"<parameter=([^>\n]*)>((?:(?!</parameter>).)*)</parameter>", re.DOTALL)
PYTHON = {"True": True, "False": False, "None": None}
"""How the published template writes these, as Jinja prints them."""


def read_qwen3_5(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`QWEN3_5` writes them."""
    from ftk import ToolCall

    found = list(CALL.finditer(text))
    if not found:
        return text, ()
    known = parameters_of(tools)
    calls = []
    for name, inside in (one.groups() for one in found):
        given = {key: value.removeprefix("\n").removesuffix("\n") for key, value in PARAMETER.findall(inside)}
        schemas = known.get(name, {})
        calls.append(ToolCall(name, {key: typed(value, schemas.get(key, {})) for key, value in given.items()}))
    return text[: found[0].start()].removesuffix("\n\n"), tuple(calls)


def typed(text: str, schema: Any) -> Any:
    """The value that ``text`` stands for: a string where the schema says so, else JSON, else a string after all."""
    if isinstance(schema, Mapping) and "string" in (schema.get("type") or ()):
        return text
    try:
        return PYTHON[text] if text in PYTHON else json.loads(text)
    except json.JSONDecodeError:
        return text
