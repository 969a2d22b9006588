"""How a family of models is told about its tools, how it calls them, and how its calls are read back.

A plugin declares its dialects with the hook ``ftk_tool_formats``; a chat template names the one it writes, and
``tool_format: NAME`` in the YAML puts another in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import ftk

if TYPE_CHECKING:
    from ftk import ToolCall
    from ftk.types import Tools


@dataclass(frozen=True, eq=False, repr=False)
class ToolFormat(ftk.Spec):
    """Fragments of Jinja; each writes text where the template needs it.

    system: the content of the system turn; sees ``system`` (a string or none) and ``tools``. Empty when the tools
        do not stand there.
    user: the content of the first user turn, in the same way; sees ``content`` and ``tools``.
    answer: what an assistant turn with calls says; sees ``content`` and ``message.tool_calls``.
    result: the content of a tool turn; sees ``content``.
    target: ``read(text, tools) -> (content, calls)``, which takes what ``answer`` wrote apart again: for any content
        and calls that ``answer`` can write it gives the same. Text without calls comes back as it is, with none.
        Values whose type the text doesn't show are read as the schema in ``tools`` says.
    """

    kind: ClassVar[str] = "tool_format"

    answer: str = "{{- content }}"
    system: str = ""
    user: str = ""
    result: str = "{{- content }}"


def write_answer(form: ToolFormat, content: str, calls: Sequence[ToolCall]) -> str:
    """The text of an assistant turn with calls, without what the template has around it.

    Raises DataError when the dialect cannot write them, for instance two calls where it knows one a turn.
    """
    import jinja2
    from ftk import DataError, Message

    from ftk_data.environment import TemplateRefused, compiled
    from ftk_data.messages import as_dicts

    (message,) = as_dicts([Message("assistant", content, tool_calls=tuple(calls))], "")
    try:
        return compiled(form.answer).render(content=content, message=message)
    except (TemplateRefused, jinja2.TemplateError, TypeError, ValueError) as cause:
        raise DataError(f"{form.name} cannot write this call: {cause}") from cause


def read_answer(form: ToolFormat, text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """The content and the calls of an answer; a dialect without a reader finds none."""
    if not form.target:
        return text, ()
    content, calls = form.load()(text, tools)
    return str(content), tuple(calls)


def parameters_of(tools: Tools) -> Mapping[str, Mapping[str, Any]]:
    """Tool name → parameter name → its JSON Schema; empty where a tool says nothing."""
    described = [tool.get("function", tool) for tool in tools]
    return {
        str(one.get("name")): (one.get("parameters") or {}).get("properties") or {}
        for one in described
        if isinstance(one, Mapping)
    }


def json_blocks(text: str, opening: str, closing: str) -> Iterator[tuple[int, int, Any]]:
    """(start, end, value) of each JSON value between two marks; whitespace around it is ignored.

    The JSON itself says where it ends, so a mark inside one of its strings does no harm. Anything else is skipped.
    """
    decoder = json.JSONDecoder()
    at = 0
    while (start := text.find(opening, at)) >= 0:
        at = start + len(opening)
        inside = re.compile(r"\s*").match(text, at)
        try:
            value, end = decoder.raw_decode(text, inside.end() if inside else at)
        except json.JSONDecodeError:
            continue
        after = re.compile(r"\s*" + re.escape(closing)).match(text, end)
        if after:
            at = after.end()
            yield start, at, value


def read_hermes(text: str, tools: Tools = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Calls as :data:`HERMES` writes them."""
    from ftk import ToolCall

    blocks = list(json_blocks(text, "<tool_call>", "</tool_call>"))
    found = [(start, one) for start, _, one in blocks if isinstance(one, dict) and isinstance(one.get("name"), str)]
    if not found:
        return text, ()
    calls = tuple(ToolCall(one["name"], one.get("arguments") or {}) for _, one in found)
    return text[: found[0][0]].removesuffix("\n"), calls


HERMES = ToolFormat(
    "hermes",
    target="ftk_data.tools:read_hermes",
    summary="JSON between tool_call tags: Qwen2.5, Qwen3, Hermes and many more",
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
    {%- if "<tool_call>" in content %}
        {{- raise_exception("the text before it holds <tool_call>, so that it would be read as a call") }}
    {%- endif %}
    {{- content }}
    {%- for call in message.tool_calls %}
        {%- if content or not loop.first %}
            {{- "\n" }}
        {%- endif %}
        {{- '<tool_call>\n{"name": ' ~ call.function.name | tojson ~ ', "arguments": ' }}
        {%- if call.function.arguments is string %}
            {{- call.function.arguments }}
        {%- else %}
            {{- call.function.arguments | tojson }}
        {%- endif %}
        {{- '}\n</tool_call>' }}
    {%- endfor %}""",
)
"""Calls as JSON between ``<tool_call>`` tags, as the published templates of Qwen2.5 and Qwen3 write them."""

HERMES_2_5 = replace(
    HERMES,
    answer=HERMES.answer.replace(
        """
        {%- if call.function.arguments is string %}
            {{- call.function.arguments }}
        {%- else %}
            {{- call.function.arguments | tojson }}
        {%- endif %}""",
        """
        {{- call.function.arguments | tojson }}""",
    ),
)
"""The same as Qwen2.5 and MiMo write it, which encode arguments that come as text once more. Rows have none."""
