"""Calls as DeepSeek V3 and R1 make them: each a block of JSON between control tokens."""

from __future__ import annotations

import json
import re

from ftk_data.tools import ToolFormat

DEEPSEEK = ToolFormat(
    "deepseek",
    target="ftk_template_deepseek.tools:read",
    summary="DeepSeek V3 and R1: fenced JSON between control tokens",
    system=r"""
    {%- if system %}
        {{- system + "\n\n" }}
    {%- endif %}
    {{- "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" + (tool | tojson) }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor function call returns, you should first print <｜tool▁calls▁begin｜>\nFor each function call, you should return object like:\n<｜tool▁call▁begin｜>function<｜tool▁sep｜><function_name>\n```json\n<function_arguments_in_json_format>\n```<｜tool▁call▁end｜>\nAt the end of function call returns, you should print <｜tool▁calls▁end｜><｜end▁of▁sentence｜>" }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if "<｜tool▁calls▁begin｜>" in content %}
        {{- raise_exception("the content holds <｜tool▁calls▁begin｜>, which starts calls") }}
    {%- endif %}
    {{- content ~ "<｜tool▁calls▁begin｜>" }}
    {%- for call in message.tool_calls %}
        {%- if "\n" in call.function.name %}
            {{- raise_exception("the name of a function holds a line break") }}
        {%- endif %}
        {%- set given = call.function.arguments %}
        {{- "\n" if not loop.first }}
        {{- "<｜tool▁call▁begin｜>function<｜tool▁sep｜>" ~ call.function.name ~ "\n```json\n" }}
        {{- given if given is string else given | tojson }}
        {{- "\n```<｜tool▁call▁end｜>" }}
    {%- endfor %}
    {{- "<｜tool▁calls▁end｜>" }}""",
)

ONE = re.compile(r"\s*<｜tool▁call▁begin｜>function<｜tool▁sep｜>([^\n]*)\n```json\s*")
AFTER = re.compile(r"\s*```<｜tool▁call▁end｜>")


def read(text, tools=()):
    """Calls as :data:`DEEPSEEK` writes them; a block that is cut short or no JSON ends the list."""
    from ftk import ToolCall

    content, start, _ = text.partition("<｜tool▁calls▁begin｜>")
    calls = []
    at = len(content) + len(start)
    while opening := ONE.match(text, at):
        try:
            arguments, at = json.JSONDecoder().raw_decode(text, opening.end())
        except json.JSONDecodeError:
            break
        closing = AFTER.match(text, at)
        if not closing or not isinstance(arguments, dict):
            break
        calls.append(ToolCall(opening[1], arguments))
        at = closing.end()
    return (content, tuple(calls)) if calls else (text, ())
