"""How a family of models is told about its tools and how it calls them, as fragments of its Jinja chat template."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ToolFormat:
    """Fragments of Jinja; each writes text where the template needs it.

    system: the content of the system turn; sees ``system`` (a string or none) and ``tools``. Empty when the tools
        do not stand there.
    user: the content of the first user turn, in the same way; sees ``content`` and ``tools``.
    answer: what an assistant turn with calls says; sees ``content`` and ``message.tool_calls``.
    result: the content of a tool turn; sees ``content``.
    """

    answer: str
    system: str = ""
    user: str = ""
    result: str = "{{- content }}"


HERMES = ToolFormat(
    system=r"""
    {%- if system is not none %}
        {{- system + "\n\n" }}
    {%- endif %}
    {{- "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>" }}""",  # noqa: E501 (the families' own words)
    answer=r"""
    {{- content }}
    {%- for call in message.tool_calls %}
        {%- if content or not loop.first %}
            {{- "\n" }}
        {%- endif %}
        {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
        {%- if call.function.arguments is string %}
            {{- call.function.arguments }}
        {%- else %}
            {{- call.function.arguments | tojson }}
        {%- endif %}
        {{- '}\n</tool_call>' }}
    {%- endfor %}""",
)
"""Calls as JSON between ``<tool_call>`` tags, as the published templates of Qwen2.5 and Qwen3 write them."""
