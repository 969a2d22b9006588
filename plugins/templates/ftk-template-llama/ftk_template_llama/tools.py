"""Tools as the published templates of Llama 3.1 to 3.3 and Llama 4 write them: told of in the first question."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ftk_data.tools import ToolFormat

if TYPE_CHECKING:
    from ftk import ToolCall
    from ftk.types import Tools

LLAMA3 = ToolFormat(
    "llama3",
    target="ftk_template_llama.tools:read_llama3",
    summary="Llama 3.1 to 3.3: one JSON call a turn and nothing beside it",
    system=r"""{{- "Environment: ipython\n" + (system or "") }}""",
    user=r"""
    {{- "Given the following functions, please respond with a JSON for a function call with its proper arguments that best answers the given prompt.\n\n" }}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {{- "Do not use variables.\n\n" }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- content }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if message.tool_calls | length != 1 %}
        {{- raise_exception("this family makes one call a turn") }}
    {%- endif %}
    {%- if content %}
        {{- raise_exception("this family says nothing beside a call, found " ~ content) }}
    {%- endif %}
    {%- set call = message.tool_calls[0].function %}
    {{- '{"name": ' ~ call.name | tojson ~ ', "parameters": ' }}
    {{- call.arguments | tojson ~ "}" }}""",
    result="{{- content | tojson }}",
)

LLAMA4 = replace(
    LLAMA3,
    name="llama4",
    target="ftk_template_llama.tools:read_llama4",
    summary="Llama 4: JSON calls one after the other, behind what is said",
    answer=r"""
    {%- if "<|python_start|>" in content or "<|python_end|>" in content %}
        {{- raise_exception("marks around the text before a call stand in the text: " ~ content) }}
    {%- endif %}
    {{- "<|python_start|>" ~ content ~ "<|python_end|>" }}
    {%- for call in message.tool_calls %}
        {%- set call = call.function %}
        {{- '{"name": ' ~ call.name | tojson ~ ', "parameters": ' }}
        {{- call.arguments | tojson ~ "}" }}
    {%- endfor %}""",
)


def read_llama3(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """A call as :data:`LLAMA3` writes it: the answer is the call or has none."""
    calls = _calls(text)
    return ("", calls) if calls and len(calls) == 1 else (text, ())


def read_llama4(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`LLAMA4` writes them. Models may leave the marks out when they say nothing."""
    content, after = "", text
    if text.startswith("<|python_start|>"):
        content, _, after = text.removeprefix("<|python_start|>").partition("<|python_end|>")
    calls = _calls(after)
    return (content, calls) if calls else (text, ())


def _calls(text: str) -> tuple[ToolCall, ...]:
    """The calls that make up all of a text; none when there is anything else in it."""
    from ftk import ToolCall

    found: list[ToolCall] = []
    left = text.strip()
    while left:
        try:
            one, end = json.JSONDecoder().raw_decode(left)
        except json.JSONDecodeError:
            return ()
        if not _is_call(one):
            return ()
        found.append(ToolCall(one["name"], one["parameters"]))
        left = left[end:].lstrip("; \n")
    return tuple(found)


def _is_call(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"name", "parameters"}
        and isinstance(value["name"], str)
        and isinstance(value["parameters"], dict)
    )
