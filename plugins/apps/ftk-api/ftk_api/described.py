"""What ``/openapi.json`` says of messages and tools. Read they are where training data are (``ftk_data.turns``)."""

from __future__ import annotations

from typing import Any


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _part(kind: str, **value: Any) -> dict[str, Any]:
    (name,) = value
    return _object(("type", name), type={"const": kind}, **value)


TEXT = {"type": "string"}
ADDRESS = _object(("url",), url={**TEXT, "description": "a data URI, or an address or path where the server allows it"})
CONTENT = {
    "anyOf": [
        TEXT,
        {
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [_part("text", text=TEXT), _part("image_url", image_url=ADDRESS)]},
        },
    ]
}
CALL = _object(
    ("function",),
    id=TEXT,
    type={"const": "function"},
    function=_object(
        ("name", "arguments"), name={**TEXT, "minLength": 1}, arguments={**TEXT, "description": "a JSON object"}
    ),
)
MESSAGE = {
    "anyOf": [
        _object(("role", "content"), role={"enum": ["system", "developer", "user"]}, content=CONTENT),
        _object(
            ("role", "content"),
            role={"const": "assistant"},
            content={"type": ["string", "null"]},
            reasoning_content=TEXT,
            tool_calls={"type": "array", "items": CALL},
        ),
        _object(("role", "content"), role={"const": "tool"}, content=CONTENT, tool_call_id=TEXT),
    ]
}
TOOL = _object(
    ("type", "function"),
    type={"const": "function"},
    function=_object(("name",), name={**TEXT, "minLength": 1}, description=TEXT, parameters={"type": "object"}),
)
