"""Calls that a request insists on: the answer is held to a JSON schema, which is then the call, whatever the template.

A template's own form of a call cannot be promised; a JSON object ``{"name": ..., "arguments": {...}}`` can, by an
engine that follows ``Sampling.schema``. Others refuse it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ftk import Message, ToolCall
from ftk.types import Tools

from ftk_api.refusals import Refusal

SHARED = ("$defs", "definitions")


def schema_of(tools: Tools) -> dict[str, Any]:
    """The schema of a call to one of the tools. Raises Refusal for definitions that two tools name alike."""
    root: dict[str, Any] = {}
    calls = []
    for tool in tools:
        function = tool["function"]
        parameters = function.get("parameters") or {"type": "object"}
        if not isinstance(parameters, Mapping):
            raise Refusal(400, f"tools: parameters of {function['name']}: expected a JSON schema", "tools")
        for key in SHARED:
            for name, one in (parameters.get(key) or {}).items():
                if root.setdefault(key, {}).setdefault(name, one) != one:
                    raise Refusal(400, f"tools: {key} has {name} in two ways; rename one", "tools")
        own = {key: value for key, value in parameters.items() if key not in SHARED}
        properties = {"name": {"const": function["name"]}, "arguments": own}
        calls.append(
            {
                "type": "object", "properties": properties, "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )  # fmt: skip
    return {"anyOf": calls, **root} if len(calls) > 1 else {**calls[0], **root}


def read_call(text: str) -> Message:
    """The message of an answer that was held to :func:`schema_of`; one that was cut stays a text."""
    try:
        said = json.loads(text)
        return Message("assistant", "", tool_calls=(ToolCall(said["name"], said["arguments"]),))
    except (ValueError, TypeError, KeyError):
        return Message("assistant", text)
