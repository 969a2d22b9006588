"""The tool dialect of Kimi K2: JSON between control tokens, under ids that count the calls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ftk_data.tools import ToolFormat, json_blocks

if TYPE_CHECKING:
    from ftk import ToolCall
    from ftk.types import Tools

SECTION = "<|tool_calls_section_begin|>"
ID = re.compile(r"<\|tool_call_begin\|>\s*functions\.(.+):\d+\s*$", re.DOTALL)


def read_calls(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`KIMI_K2` writes them."""
    from ftk import ToolCall

    content, _, rest = text.partition(SECTION)
    calls: list[ToolCall] = []
    done = 0
    for start, end, arguments in json_blocks(rest, "<|tool_call_argument_begin|>", "<|tool_call_end|>"):
        name = ID.search(rest[done:start])
        done = end
        if name and isinstance(arguments, dict):
            calls.append(ToolCall(name[1], arguments))
    return (content, tuple(calls)) if calls else (text, ())


KIMI_K2 = ToolFormat(
    "kimi_k2",
    target="ftk_template_kimi.tools:read_calls",
    summary="Kimi K2: JSON under numbered ids, between control tokens",
    system=r"""
    {%- if system is not none %}
        {{- system + "\n\n" }}
    {%- endif %}
    {{- tools | tojson }}""",
    answer=r"""
    {%- if "<|tool_calls_section_begin|>" in content %}
        {{- raise_exception("the text before it holds <|tool_calls_section_begin|>") }}
    {%- endif %}
    {{- content ~ "<|tool_calls_section_begin|>" }}
    {%- for call in message.tool_calls %}
        {%- if "<|" in call.function.name or not call.function.name %}
            {{- raise_exception("the name of a tool holds no control token") }}
        {%- endif %}
        {{- "<|tool_call_begin|>functions." ~ call.function.name ~ ":" ~ loop.index0 }}
        {{- "<|tool_call_argument_begin|>" }}
        {%- if call.function.arguments is string %}
            {{- call.function.arguments }}
        {%- else %}
            {{- call.function.arguments | tojson }}
        {%- endif %}
        {{- "<|tool_call_end|>" }}
    {%- endfor %}
    {{- "<|tool_calls_section_end|>" }}""",
)
"""As the published template writes an answer. Kimi's own tools stand in a turn before the system's, which only the
whole template ``kimi_k2`` can write; and it counts the calls of a conversation, not of an answer."""
