"""The conversations that ``ftk template check`` renders, in the form of the OpenAI API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftk_inspect.habits import TOOLS

Turn = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A conversation. ``prompt`` renders it with the generation prompt; ``kwargs`` are further template variables."""

    name: str
    messages: Sequence[Turn]
    tools: Sequence[Mapping[str, Any]] | None = None
    prompt: bool = False
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def user(text: str) -> Turn:
    return {"role": "user", "content": text}


def system(text: str) -> Turn:
    return {"role": "system", "content": text}


def answer(text: str, thought: str = "", calls: Sequence[Turn] = ()) -> Turn:
    thinking = {"reasoning_content": thought} if thought else {}
    return {"role": "assistant", "content": text, **thinking, **({"tool_calls": list(calls)} if calls else {})}


def call(number: int, **arguments: Any) -> Turn:
    # nine letters, as Mistral wants
    return {
        "type": "function", "id": f"call0000{number}", "function": {"name": "get_weather", "arguments": arguments},
    }  # fmt: skip


def result(number: int, text: str) -> Turn:
    return {"role": "tool", "tool_call_id": f"call0000{number}", "name": "get_weather", "content": text}


ONE = [user("How do you do?"), answer("Very well, thank you.")]
TURNS = [user("One and one?"), answer("Two."), user("And one more?"), answer("Three."), user("Thanks!"), answer("Bye.")]
THOUGHT = [user("One and one?"), answer("Two.", "Counting: one, two."), user("And one more?")]
CALLED = [user("Weather in Oslo?"), answer("", calls=[call(1, city="Oslo", days=2)])]
TWICE = [user("Oslo and Rome?"), answer("", calls=[call(1, city="Oslo"), call(2, city="Rome", days=1)])]
RETURNED = [*CALLED, result(1, '{"sky": "clear"}')]

CASES = (
    Case("one turn", ONE),
    Case("one turn, prompt", ONE[:1], prompt=True),
    Case("system", [system("You are terse."), *ONE]),
    Case("system, prompt", [system("You are terse."), *ONE[:1]], prompt=True),
    Case("empty system", [system(""), *ONE]),
    Case("several turns", TURNS),
    Case("several turns, prompt", TURNS[:-1], prompt=True),
    Case("several turns, system", [system("Count."), *TURNS]),
    Case("unicode", [user("Grüße, 世界! 👩‍👩‍👧 ﷽"), answer("Ça va? “Yes” ½ \u00a0 й")]),
    Case("whitespace", [user("  a\n\n b\t"), answer("\n  x = 1\n\n    y\n")]),
    Case("quotes and braces", [user("{{ x }} {% if %} \"a\" 'b' \\n"), answer('{"a": "<b>&amp;"}')]),
    Case("tools", [user("Weather in Oslo?"), answer("I cannot tell.")], TOOLS),
    Case("tools, system, prompt", [system("Use tools."), user("Weather in Oslo?")], TOOLS, prompt=True),
    Case("a call", CALLED, TOOLS),
    Case("a call after text", [CALLED[0], answer("Let me see.", calls=[call(1, city="Oslo")])], TOOLS),
    Case("parallel calls", TWICE, TOOLS),
    Case("a result, prompt", RETURNED, TOOLS, prompt=True),
    Case("a result and the answer", [*RETURNED, answer("Clear."), user("Thanks!"), answer("Bye.")], TOOLS),
    Case("parallel results", [*TWICE, result(1, "clear"), result(2, "rain"), answer("Clear; rain.")], TOOLS),
    Case("reasoning", THOUGHT[:2]),
    Case("earlier reasoning", [*THOUGHT, answer("Three.", "Two and one.")]),
    Case("earlier reasoning, prompt", THOUGHT, prompt=True),
    Case("thinking on, prompt", ONE[:1], prompt=True, kwargs={"enable_thinking": True}),
    Case("thinking off, prompt", ONE[:1], prompt=True, kwargs={"enable_thinking": False}),
    Case("thinking off", ONE, kwargs={"enable_thinking": False}),
)


def adapted(messages: Sequence[Turn], reasoning_key: str, *, text_arguments: bool) -> Iterator[Turn]:
    """The messages with reasoning under the key that a template reads, and arguments as JSON text where it wants it."""
    for message in messages:
        turn = dict(message)
        if "reasoning_content" in turn:
            turn[reasoning_key] = turn.pop("reasoning_content")
        if text_arguments and "tool_calls" in turn:
            turn["tool_calls"] = [
                {**one, "function": {**one["function"], "arguments": json.dumps(one["function"]["arguments"])}}
                for one in turn["tool_calls"]
            ]
        yield turn
