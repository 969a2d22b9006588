"""The tool dialect of SmolLM3: Hermes' calls under a heading of its own, tools in Python's notation."""

from dataclasses import replace

from ftk_data.tools import HERMES

SMOLLM3 = replace(
    HERMES,
    name="smollm3",
    summary="SmolLM3: JSON between tool_call tags, under a heading of its own",
    system=r"""
    {%- if system is not none %}
        {{- system + "\n\n" }}
    {%- endif %}
    {{- "### Tools\n\nYou may call one or more functions to assist with the user query.\nYou are provided with function signatures within <tools></tools> XML tags:\n\n<tools>\n" }}
    {%- for tool in tools %}
        {{- tool | string + "\n" }}
    {%- endfor %}
    {{- "</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>" }}""",  # noqa: E501 (the family's own words)
)
