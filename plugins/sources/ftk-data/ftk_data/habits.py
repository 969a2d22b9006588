"""What a chat template does around answers, found by giving it a question and an answer that it cannot know."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

from ftk import DataError, Message, ToolCall

from ftk_data.messages import THINK_CLOSE, THINK_OPEN
from ftk_data.templates import ASKED, PROBE, Template

log = logging.getLogger("ftk.data")


ROLES = re.compile(r"assistant|model|bot|gpt", re.IGNORECASE)
"""What a header that starts an assistant's turn calls it."""


class Habits(NamedTuple):
    """What a template does around the only answer of a conversation.

    lead: what it writes in front of the answer's text where the generation prompt has ended, or has gone another way.
    tail: what follows the answer's text. stop: the token in it that ends the turn, empty when there is none.
    missing: then, the token that has to be appended: what ends earlier answers, else the tokenizer's end token.
    extra: what the generation prompt has that the template doesn't write in front of a given answer.
    header: what starts an answer's turn in a template that has no generation prompt. begin: the same where it has.
    marked: answers stand in ``generation`` blocks. known: False when the template refuses so short a conversation.
    """

    lead: str = ""
    tail: str = ""
    stop: str = ""
    missing: str = ""
    extra: str = ""
    header: str = ""
    begin: str = ""
    marked: bool = False
    known: bool = True

    @property
    def ending(self) -> str:
        """The tail from the stop token on."""
        return self.tail[self.tail.index(self.stop) :]


def habits_of(template: Template, ends: Collection[str], thinking: Any) -> Habits:
    """ends: what may end an answer, as far as the tokenizer says."""
    for system in ((), (Message("system", "."),)):
        asked = (*system, Message("user", PROBE + "?"))
        try:
            full, spans = template.render((*asked, Message("assistant", PROBE)), thinking=thinking)
            prompt = template.render(asked, generation=True, thinking=thinking).text
            silent = template.render(asked, thinking=thinking).text
        except DataError:
            continue
        before, probe, tail = full.rpartition(PROBE)
        if probe and before.count(PROBE) == 1:
            block = next((a for a, b in spans if a <= len(before) and b >= len(before) + len(PROBE)), None)
            stop, missing = _stop(template, asked, ends, thinking, tail)
            made = Habits("", tail, stop, missing, marked=block is not None)
            return _started(made, before, prompt, silent, block)
    return Habits(missing=template.tokens.get("eos_token", ""), known=False)


def _started(made: Habits, before: str, prompt: str, silent: str, block: int | None) -> Habits:
    """The habits with how an answer starts. silent: without the generation prompt. block: where a block starts."""
    shared = num_shared(before, prompt)
    if shared < prompt.find(PROBE) + len(PROBE):  # what came before is rewritten, too: the ends are alike
        started, given = (text.rpartition(PROBE + "?")[2] for text in (prompt, before))
        return made._replace(lead=given[len(started) :] if given.startswith(started) else "")
    header = ""
    if prompt == silent and shared == len(prompt) and not ROLES.search(prompt.rpartition(PROBE)[2]):
        header = before[shared : len(before) if block is None else max(shared, block)]
        header = header.partition(THINK_OPEN.strip())[0] if ROLES.search(header) else ""
    if header:
        log.warning("the chat template has no generation prompt; prompts get %r, with which it starts answers", header)
    begin = before[len(silent) : shared] if before.startswith(silent) else ""
    return made._replace(lead=before[shared + len(header) :], extra=prompt[shared:], header=header, begin=begin)


def _stop(
    template: Template, asked: tuple[Message, ...], ends: Collection[str], thinking: Any, tail: str
) -> tuple[str, str]:
    """The token that ends an answer, and the one to append where the template writes none."""
    eos = template.tokens.get("eos_token", "")
    turns = (*asked, Message("assistant", PROBE), Message("user", PROBE + "!"))
    try:
        text = template.render(turns, thinking=thinking).text
    except DataError:
        text = ""
    found = re.search(re.escape(PROBE) + r"(?![?!])(.*?)" + re.escape(PROBE + "!"), text, re.DOTALL)
    between, first = found[1] if found else "", text.partition(PROBE)[0]
    stop = stop_in(tail, ends, first, eos)
    if stop:
        return _last_of(stop, tail, between, ends, eos), ""
    earlier = stop_in(between, ends, first, eos)
    if eos and not earlier:
        log.warning(
            "the chat template writes no stop token, so %s ends an answer that no token of the next turn ends", eos
        )
    return "", earlier or eos


def _last_of(stop: str, tail: str, between: str, ends: Collection[str], eos: str) -> str:
    """``eos`` where nothing but tokens stand from ``stop`` to it, also after earlier answers; else ``stop``."""
    at = start = tail.index(stop)
    token = stop
    while token and token != eos:
        at += len(token)
        token = max((one for one in ends if one and tail.startswith(one, at)), key=len, default="")
    return eos if token and tail[start : at + len(eos)] in between else stop


def num_shared(one: str, other: str) -> int:
    """How many characters two texts share at their start."""
    if other.startswith(one):
        return len(one)
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def stop_in(tail: str, ends: Collection[str], before: str = "", eos: str = "") -> str:
    """What ends an answer in what follows it: the first of ``ends``, the longest where several start there.

    Without one it is the first word, for tokenizers that do not say what is special. What starts the next turn is none
    of it: ``before`` ends with what starts the first question. That has no ``eos`` in it.
    """
    found = min(((tail.index(token), -len(token), token) for token in ends if token in tail), default=None)
    stop = found[2] if found else next(iter(tail.split()), "")
    header = tail[len(tail) - num_shared(tail[::-1], before[::-1]) :]
    if not stop or (eos and eos in header):
        return stop
    room = len(tail) - len(header) - tail.index(stop.lstrip())
    if not found and 0 < room < len(stop) and header[0] in "<[":  # in one word
        return stop[:room]
    return stop if room > 0 else ""


def thought_of(template: Template, thinking: Any) -> tuple[str, str]:
    """The marks that a template has around reasoning, as it writes them; those of nearly all families without any."""
    if not template.reasoning_key:
        return THINK_OPEN, THINK_CLOSE
    said = Message("assistant", PROBE + "!", reasoning=PROBE)
    calling = replace(said, content="", tool_calls=(ToolCall(PROBE + "!", {}),))
    for one, asked in ((one, asked) for one in (said, calling) for asked in (thinking, True)):
        try:
            full = template.render((ASKED, one), thinking=asked).text
            plain = template.render((ASKED, replace(one, reasoning=None)), thinking=asked).text
            prompt = template.render((ASKED,), generation=True, thinking=asked).text
        except DataError:
            continue
        found = re.search(re.escape(PROBE) + r"(?!!)", full)
        if found:
            before, after = full[: found.start()], full[found.end() :]
            start = len(prompt) if full.startswith(prompt) else _mark_start(before, num_shared(before, plain))
            closing = after.partition(PROBE)[0]
            if one.tool_calls:  # without what starts the call
                closing = after[: len(after) - num_shared(after[::-1], plain[::-1])]
            opening = before[start:] or _last_mark(before)
            if opening.strip() and closing.strip():
                return opening, closing
    return THINK_OPEN, THINK_CLOSE


def _mark_start(text: str, place: int) -> int:
    """The place, or where the mark starts that it stands in: ``<|`` is what one mark shares with another."""
    mark = re.search(r"[<\[][|｜]?$", text[:place])
    return mark.start() if mark else place


def _last_mark(text: str) -> str:
    """The tag that a text ends with, or the word."""
    mark = re.search(r"(<[^<>]*>|\[[^\[\]]*\])\s*$", text) or re.search(r"\S+\s*$", text)
    return mark[0] if mark else ""
