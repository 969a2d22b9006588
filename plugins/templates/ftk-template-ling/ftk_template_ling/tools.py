"""The tool dialect of Ling 2: the Hermes way, and a word on reasoning after the tools."""

from dataclasses import replace

from ftk_data.tools import HERMES

LING = replace(
    HERMES,
    name="ling",
    summary="Ling 2: JSON between tool_call tags, reasoning switched off in words",
    system=HERMES.system.replace(r'system + "\n\n"', r'system + "\n"') + r'{{- "\ndetailed thinking off" }}',
)
