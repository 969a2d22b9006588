"""Checks of what a plugin does: commands, templates and converters, each tried on something small."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ftk.errors import DataError
from ftk.specs import ChatTemplate, Command, DatasetConverter, Spec
from ftk.testing.checked import Checked, CheckFailed
from ftk.types import ChatExample, DatasetEntry, FeedbackExample, PairExample, TextExample

SAMPLES: tuple[Mapping[str, Any], ...] = (
    {"instruction": "Add.", "input": "1 and 2", "output": "three", "system": "", "history": [["Hi", "Hello"]]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
    {"instruction": "Hi", "input": "", "output": "Hello", "label": True},
    {"text": "Once upon a time"},
)
"""Rows in the usual layouts, for converters that read one of them."""


def _commands_are_click_commands(plugin: Checked) -> str:
    import click

    for spec, _, code in plugin.code():
        if isinstance(spec, Command) and not isinstance(code, click.Command):
            raise CheckFailed(f"{spec.id}: {spec.target} is no click command")
    return ""


def _templates_render(plugin: Checked) -> str:
    found = [spec for spec in plugin.specs if isinstance(spec, ChatTemplate) and not spec.target]
    for spec in found:
        text = "".join(_conversation(spec))
        places = [text.find(word) for word in ("SYSTEM-TEXT", "FIRST-QUESTION", "FIRST-ANSWER", "SECOND-QUESTION")]
        if -1 in places or places != sorted(places):
            raise CheckFailed(f"{spec.id}: renders the turns of a conversation as {text!r}")
        if not any(stop in spec.assistant for stop in ("{eos}", *spec.stop)):
            raise CheckFailed(
                f"{spec.id}: assistant={spec.assistant!r} holds no stop token; end it with {{eos}} or a stop"
            )
    return f"{len(found)} templates render a conversation" if found else ""


def _conversation(spec: ChatTemplate) -> Iterator[str]:
    """A conversation with a system text and two rounds, in the spec's formats taken literally."""
    yield _filled(spec, "prefix")
    first = "FIRST-QUESTION"
    if spec.system_in_user is None:
        yield _filled(spec, "system", "SYSTEM-TEXT")
    else:
        first = _filled(spec, "system_in_user", "SYSTEM-TEXT") + first
    for question, answer in ((first, "FIRST-ANSWER"), ("SECOND-QUESTION", "SECOND-ANSWER")):
        yield _filled(spec, "user", question) + spec.generation
        yield _filled(spec, "assistant", answer) + spec.assistant_end


def _filled(spec: ChatTemplate, field: str, content: str | None = None) -> str:
    text = getattr(spec, field)
    if content is not None and "{content}" not in text:
        raise CheckFailed(f"{spec.id}: {field}={text!r} lacks {{content}}")
    return str(text).replace("{content}", content or "")


def _converters_are_pure(plugin: Checked) -> str:
    lines = []
    for spec, _, convert in plugin.code():
        if isinstance(spec, DatasetConverter):
            own = {column: f"some {column}" for column in spec.columns}
            taken = sum(_converts_purely(spec, convert, row) for row in (*plugin.rows, own, *SAMPLES, {}))
            if not taken and plugin.rows:
                raise CheckFailed(f"{spec.id}: takes none of the rows that were given to check_plugin")
            lines.append(f"{spec.id} is pure over {taken} rows" if taken else f"{spec.id}: no sample row fits it")
    return "; ".join(lines)


def _converts_purely(spec: Spec, convert: Callable[..., Any], row: Mapping[str, Any]) -> bool:
    """Whether the row was taken. A row that does not fit may be dropped (None) or refused (DataError), nothing else."""
    entry = DatasetEntry("sample", {}, "check_plugin", ".")
    before = copy.deepcopy(row)
    try:
        first, second = convert(row, entry), convert(row, entry)
    except DataError:
        return False
    except Exception as cause:
        raise CheckFailed(f"{spec.id}: {row} raises {type(cause).__name__}: {cause}; raise ftk.DataError") from cause
    if row != before:
        raise CheckFailed(f"{spec.id}: changes the row that it is given, {before}")
    if first != second:
        raise CheckFailed(f"{spec.id}: gives two different examples for {row}")
    if first is not None and not isinstance(first, TextExample | ChatExample | PairExample | FeedbackExample):
        raise CheckFailed(f"{spec.id}: returns {type(first).__name__}, which is no example")
    return first is not None


BEHAVIOUR_CHECKS: tuple[Callable[[Checked], str], ...] = (
    _commands_are_click_commands, _templates_render, _converters_are_pure,
)  # fmt: skip
