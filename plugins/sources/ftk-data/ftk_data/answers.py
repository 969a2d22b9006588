"""Where an answer starts and ends in what a chat template writes.

The prompt of an answer is the render of what comes before it with the generation prompt; the answer is what the render
with it has beyond that, up to and with the stop token. So places are counted, and nothing is searched for that a text
could hold, too: an answer may look like the template, the question or a stop token.

Where the render with the answer doesn't begin with the prompt, either the template has another prompt for such answers
(without a thought), or it writes what the prompt promised in another way, or it rewrites what came before. For the
last, another answer takes the place of this one, and what the two renders share shows where it starts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ftk import DataError, Message

from ftk_data.habits import Habits, num_shared, stop_in
from ftk_data.messages import THINK_CLOSE, opens, reasoning_of, with_reasoning, with_text
from ftk_data.templates import PROBE, Turns


class Answer(NamedTuple):
    """One assistant turn as rendered: what comes before it, what it trains, and what the template writes after that."""

    prompt: str
    trained: str
    rest: str


class Start(NamedTuple):
    """Where an answer starts in a render, and what the row has before it."""

    at: int
    prompt: str


@dataclass(frozen=True)
class Finder:
    """Finds the answers of conversations in one template's renders.

    ends: what may end one, for this tokenizer. marks: what stands before and after reasoning.
    """

    habits: Habits
    ends: Collection[str]
    marks: tuple[str, str]

    def answer(self, turns: Turns, number: int, thinking: Any) -> Answer:
        """Message ``number`` (from 0). Raises DataError when it cannot be told from what comes before it."""
        message = turns.messages[number]
        full, spans = turns.full(number + 1, thinking)
        start = self._marked(self._start(turns, number, thinking, full), full, spans, message)
        end, missing = self._end(turns, number, thinking, full, start.at)
        if end - start.at <= len(self.habits.stop) and _left_out(turns, number, thinking, full):
            raise DataError(f"the chat template leaves out turn {number + 1}")
        trained = full[start.at : end] + missing
        rest = "" if missing else full[end:]
        reasoning = reasoning_of(message)
        _refuse_cut(message, trained, number)
        if reasoning and not _shown(turns, number, thinking, trained, reasoning):
            # R1 and its kind write no reasoning into a conversation; the model does when it answers
            before = self._thoughtful(turns, number, thinking, start.prompt)
            return Answer(before, with_reasoning(trained, reasoning, before, self.marks), rest)
        if not message.tool_calls and message.text.strip() not in trained:
            turns.probe(number, thinking)  # refuses what is left out; else the template writes it in its own way
        return Answer(start.prompt, trained, rest)

    def _thoughtful(self, turns: Turns, number: int, thinking: Any, before: str) -> str:
        """The prompt of an answer with a thought; ``before`` where the template has none that asks for it."""
        opening, closing = self.marks
        prompt = turns.prompt(number, thinking) + self.habits.header
        if opens(prompt, opening):
            return prompt
        if turns.template.switches and (opens(prompt, closing) or opens(before, closing)):
            prompt = turns.prompt(number, True)
            return before if opens(prompt, closing) else prompt
        return before

    def _start(self, turns: Turns, number: int, thinking: Any, full: str) -> Start:
        message = turns.messages[number]
        try:
            prompt = turns.prompt(number, thinking) + self.habits.header
        except DataError:
            if any(one.role != "system" for one in turns.messages[:number]):
                raise
            return self._by_probe(turns, number, thinking, full, None)  # some write no prompt for nothing at all
        blank = self.habits.extra and not self.habits.extra.strip()  # an answer may begin with it, too
        if full.startswith(prompt) and not blank:
            return self._after(turns, number, thinking, full, prompt)
        if turns.template.switches:  # the turn as if the prompt had asked for a thought, or for none
            for other in (True, False) if message.reasoning else (False, True):
                unlike = turns.prompt(number, other)
                if full.startswith(unlike):
                    return Start(len(unlike), unlike)
        instead = self._instead(prompt, full, message.reasoning or "")
        if instead is not None:
            return Start(instead, full[:instead])
        extra, lead = self.habits.extra, self.habits.lead
        if extra and prompt.endswith(extra):
            start = len(prompt) - len(extra)
            if full.startswith(prompt[:start] + lead):
                start += len(lead) if lead.strip() else 0
                return Start(start, full[:start])
        shared = num_shared(prompt, full)
        if not prompt[shared:].strip():  # GLM-4 ends its prompts with a line break, but writes none before a call
            return Start(shared, full[:shared])
        return self._by_probe(turns, number, thinking, full, None if extra else prompt)

    def _after(self, turns: Turns, number: int, thinking: Any, full: str, prompt: str) -> Start:
        """The start after a prompt, and after the header that a template writes for answers to results only there."""
        begin = self.habits.begin
        if begin.strip() and full.startswith(begin, len(prompt)):  # which an answer may have for its text
            before, _ = turns.probe(number, thinking)
            if before.startswith(prompt + begin):
                return Start(len(prompt + begin), prompt + begin)
        return Start(len(prompt), prompt)

    def _instead(self, prompt: str, full: str, reasoning: str) -> int | None:
        """Where reasoning starts that a conversation has in the place of the prompt's empty thought."""
        closing = self.marks[1].strip()
        if not reasoning.strip() or not prompt.rstrip().endswith(closing):
            return None
        opened = prompt.rstrip().removesuffix(closing)
        base = opened.rstrip()
        if not full.startswith(base) or not full[len(base) :].lstrip().startswith(reasoning.strip()):
            return None
        return len(base) + num_shared(opened[len(base) :], full[len(base) :])

    def _by_probe(self, turns: Turns, number: int, thinking: Any, full: str, prompt: str | None) -> Start:
        before, _ = turns.probe(number, thinking)
        lead = self.habits.lead if before.endswith(self.habits.lead) else ""
        start = len(before) - len(lead)
        if _left_out(turns, number, thinking, full):
            raise DataError(f"the chat template leaves out turn {number + 1}")
        if not full.startswith(before[:start]):
            raise DataError(
                f"the chat template writes turn {number + 1} so that its start cannot be told from the prompt"
            )
        return Start(start, full[:start] if prompt is None else prompt)

    def _marked(self, start: Start, full: str, spans: list[tuple[int, int]], message: Message) -> Start:
        """The start as a ``generation`` block has it, unless the block begins before or leaves out the answer."""
        block = next((span for span in spans if span[1] > start.at), None) if self.habits.marked else None
        if (
            block is None
            or not full[start.at : block[0]].strip()
            or message.text.strip() not in full[block[0] : block[1]]
        ):
            return start
        return Start(block[0], start.prompt + full[start.at : block[0]])

    def _end(self, turns: Turns, number: int, thinking: Any, full: str, start: int) -> tuple[int, str]:
        """Where the answer that ends a render ends, stop token included, and the one to add when there is none."""
        tail, stop = self.habits.tail, self.habits.stop
        ending = self.habits.ending if stop else ""
        if stop and full.endswith(ending) and len(full) - len(ending) >= start:
            return len(full) - len(ending) + len(stop), ""
        bare = full.rstrip()
        said = turns.messages[number]
        if said.tool_calls and len(bare) > start and bare.endswith(tuple(self.ends)):
            return len(bare), ""  # some end calls in another way
        if stop or not self.habits.known or not full.endswith(tail):
            _, tail = turns.probe(number, thinking)
            if not full.endswith(tail) or len(full) - len(tail) < start:
                tail = ""
            found = stop if stop and stop in tail else stop_in(tail, self.ends)
            if found:
                return len(full) - len(tail) + tail.index(found) + len(found), ""
        return max(start, len(full) - len(tail)), stop or self.habits.missing


def _left_out(turns: Turns, number: int, thinking: Any, full: str) -> bool:
    """Whether the render is the same without message ``number``."""
    try:
        return turns.full(number, thinking).text == full
    except DataError:
        return False


def _refuse_cut(message: Message, trained: str, number: int) -> None:
    """Raise DataError when a template has cut an answer at the wrong one of several ends of a thought."""
    pieces = message.text.split(THINK_CLOSE.strip())
    if len(pieces) > 2 and any(piece.strip() not in trained for piece in pieces[1:]):
        raise DataError(f"the chat template leaves out a part of turn {number + 1}, which has several </think>")


def _shown(turns: Turns, number: int, thinking: Any, trained: str, reasoning: str) -> bool:
    """Whether an answer as written has its reasoning. Its words may stand in the answer for other reasons."""
    message = turns.messages[number]
    reasoning = reasoning.strip()
    if reasoning not in trained:
        return False
    said = message.text if message.reasoning else message.text.replace(reasoning, "", 1)
    elsewhere = said + "".join(f"{call.name}{call.arguments}" for call in message.tool_calls)
    if not reasoning or reasoning not in elsewhere:
        return True
    mark = PROBE
    while mark in elsewhere:
        mark += "7"
    marked = message.text.replace(reasoning, mark, 1)
    other = replace(message, reasoning=mark) if message.reasoning else with_text(message, marked)
    return turns.shows(number, other, mark, thinking)
