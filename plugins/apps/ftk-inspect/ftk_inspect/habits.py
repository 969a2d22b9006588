"""What a chat template does, found out by rendering probes with it: its default system text, its tool dialect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ftk import DataError, Message, ToolCall
from ftk_data.environment import compiled
from ftk_data.tools import read_answer
from jinja2 import meta, nodes

if TYPE_CHECKING:
    from ftk_data import ToolFormat
    from ftk_data.rendering import Renderer

PROBE, ASKED = "Probe4127", "Asked4127"
CALL = ToolCall("get_weather", {"city": "Oslo", "days": 2}, "call00001")
TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of the next days.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "A city."},
                    "days": {"type": "integer", "description": "How many days."},
                },
                "required": ["city"],
            },
        },
    },
)


def default_system_of(renderer: Renderer) -> str | None:
    """The system text of a conversation that brings none; None when there is none or it cannot be told.

    What stands around a given system text tells where a default one would stand.
    """
    question = Message("user", ASKED)
    try:
        given = renderer.prompt_text([Message("system", PROBE), question])
        bare = renderer.prompt_text([question])
    except DataError:
        return None
    before, probe, rest = given.partition(PROBE)
    between = rest.partition(ASKED)[0]
    head = bare.partition(ASKED)[0]
    whole = bool(probe) and len(head) >= len(before) + len(between)
    if not between or not whole or not (head.startswith(before) and head.endswith(between)):
        return None
    return head[len(before) : len(head) - len(between)]


def dialects_of(renderer: Renderer, forms: Iterable[ToolFormat]) -> tuple[list[ToolFormat], str]:
    """The dialects that read a call back as the template has written it, and why there are none."""
    messages = [Message("user", ASKED), Message("assistant", "", tool_calls=(CALL,))]
    try:
        rows = renderer.render(messages, TOOLS)
    except DataError as error:
        return [], f"none: {error}"
    said = next((segment.text for row in rows for segment in row if segment.trained), "")
    for word in renderer.stop:
        said = said.removesuffix(word)
    return [form for form in forms if _reads(form, said)], "its own, which no installed dialect reads back"


def _reads(form: ToolFormat, said: str) -> bool:
    _, calls = read_answer(form, said, TOOLS)
    return [(call.name, dict(call.arguments)) for call in calls] == [(CALL.name, dict(CALL.arguments))]


def marks_of(source: str, known: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The first pair of reasoning marks, of those that installed templates use, that a source holds."""
    pairs = ((start.strip(), end.strip()) for start, end in known)
    return next((pair for pair in pairs if all(mark in source for mark in pair)), None)


def variables_read(source: str) -> list[str]:
    """The variables that a template's source reads without setting them, in sorted order."""
    environment = compiled(source).environment
    parsed = environment.parse(source)
    # one that is set in a branch only counts as undeclared for Jinja
    own = {name.name for name in parsed.find_all(nodes.Name) if name.ctx == "store"}
    return sorted(meta.find_undeclared_variables(parsed) - own - set(environment.globals))
