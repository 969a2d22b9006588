"""The tool dialect of LFM2: a list of calls in the form of Python, each value written as JSON."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING, Any

from ftk_data.tools import ToolFormat

if TYPE_CHECKING:
    from ftk import ToolCall
    from ftk.types import Tools

START, END = "<|tool_call_start|>", "<|tool_call_end|>"
NAME = re.compile(r"""\s*([^\s=(),"']+)\s*\(""")
KEY = re.compile(r"""\s*,?\s*([^\s=(),"']+)\s*=\s*""")
CLOSE = re.compile(r"\s*\)\s*")
JSON_NAMES = {"true": True, "false": False, "null": None}


def read_calls(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`LFM2` writes them, and as a model may: with Python's True, None and single quotes."""
    from ftk import ToolCall

    content, start, rest = text.partition(START)
    read = _as_written(rest) or _as_python(rest.rpartition(END)[0]) if start else []
    return (content, tuple(ToolCall(*one) for one in read)) if read else (text, ())


def _as_written(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, arguments) of each call of a list whose values are JSON; none when it is something else."""
    calls = []
    at = 1 if text.startswith("[") else len(text)
    while name := NAME.match(text, at):
        at = name.end()
        arguments: dict[str, Any] = {}
        while key := KEY.match(text, at):
            try:
                arguments[key[1]], at = json.JSONDecoder().raw_decode(text, key.end())
            except json.JSONDecodeError:
                return []
        close = CLOSE.match(text, at)
        if not close:
            return []
        calls.append((name[1], arguments))
        at = close.end()
        if not text.startswith(",", at):
            break
        at += 1
    return calls if text.startswith("]" + END, at) else []


def _as_python(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The same of a list that Python could read."""
    try:
        parsed = ast.parse(text.strip(), mode="eval").body
        calls = parsed.elts if isinstance(parsed, ast.List) else []
        return [
            (ast.unparse(call.func), {one.arg: _value(one.value) for one in call.keywords if one.arg})
            for call in calls
            if isinstance(call, ast.Call)
        ]
    except (SyntaxError, ValueError):
        return []


def _value(node: ast.expr) -> Any:
    """A literal of Python, or one of JSON's three names. Raises ValueError for anything else."""
    if isinstance(node, ast.Name) and node.id in JSON_NAMES:
        return JSON_NAMES[node.id]
    if isinstance(node, ast.List):
        return [_value(one) for one in node.elts]
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): _value(one) for key, one in zip(node.keys, node.values, strict=True) if key}
    return ast.literal_eval(node)


LFM2 = ToolFormat(
    "lfm2",
    target="ftk_template_lfm.tools:read_calls",
    summary="LFM2: a list of calls in the form of Python, values as JSON",
    system=r"""
    {{- system + "\n" if system else "" }}
    {{- "List of tools: <|tool_list_start|>[" }}
    {%- for tool in tools %}
        {{- tool | tojson }}
        {{- ", " if not loop.last }}
    {%- endfor %}
    {{- "]<|tool_list_end|>" }}""",
    answer=r"""
    {%- if "<|tool_call_start|>" in content %}
        {{- raise_exception("the text before it holds <|tool_call_start|>") }}
    {%- endif %}
    {{- content ~ "<|tool_call_start|>[" }}
    {%- for call in message.tool_calls %}
        {%- set call = call.function %}
        {%- if call.arguments is string %}
            {{- raise_exception("the arguments of a call are an object here, not text") }}
        {%- endif %}
        {%- for name in [call.name] + call.arguments | list %}
            {%- if name.split() != [name] or name | list | select("in", "=(),\"'") | list %}
                {{- raise_exception("a name with spaces, quotes or any of =(), cannot be written: " ~ name) }}
            {%- endif %}
        {%- endfor %}
        {{- call.name ~ "(" }}
        {%- for name, value in call.arguments.items() %}
            {{- name ~ "=" ~ value | tojson }}
            {{- ", " if not loop.last }}
        {%- endfor %}
        {{- ")" }}
        {{- ", " if not loop.last }}
    {%- endfor %}
    {{- "]<|tool_call_end|>" }}""",
)
"""LLaMA-Factory's, with the quotes inside of texts escaped."""
