"""A conversation in the terminal: what was said, and the loop that reads, answers and obeys ``/`` words."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from ftk import DataError, Media, Message, Prompt, Text
from ftk.kernel_options import SamplingOptions
from ftk.types import RunningEngine

HELP = """/clear        forget what was said
/system TEXT  set the system text; without TEXT, take it out
/image FILE   show an image with the next line; also /video and /audio
/help         these lines
/exit         end; so does Ctrl-D. Ctrl-C stops an answer"""

PLACE = re.compile("<(image|video|audio)>")


class Conversation:
    """What was said, and the engine that goes on with it. ``seed`` counts on with every answer.

    showing: what the next line shows: each in the place of its ``<image>``, ``<video>`` or ``<audio>``, else before it.
    """

    def __init__(
        self, engine: RunningEngine, options: SamplingOptions, seed: int | None = None, system: str | None = None
    ) -> None:
        self.engine, self.options, self.seed, self.system = engine, options, seed, system
        self.messages: list[Message] = []
        self.showing: list[Media] = []

    def answer(self, text: str) -> Iterator[str]:
        """Say ``text`` and yield the answer as it comes. An answer that is broken off is kept as far as it came.

        Raises DataError when the conversation has become too long, or shows what the model cannot take; then nothing is
        added to it.
        """
        turn = Message("user", _content(text, self.showing))
        self.showing = []
        head = [Message("system", self.system)] if self.system else []
        said: list[str] = []
        try:
            for piece in self.engine.stream(Prompt((*head, *self.messages, turn)), self.options.sampling(self.seed)):
                said.append(piece)
                yield piece
        finally:
            if said:
                self.messages += (turn, Message("assistant", "".join(said)))
            if self.seed is not None:
                self.seed += 1

    def clear(self) -> None:
        """Forget what was said; the system text stays."""
        self.messages, self.showing = [], []


def _content(text: str, media: Sequence[Media]) -> str | tuple[Text | Media, ...]:
    """A text with media in the places that it names; those that it does not name stand before it."""
    if not media:
        return text
    waiting, parts = list(media), list[Text | Media]()
    for number, piece in enumerate(PLACE.split(text)):
        named = next((one for one in waiting if one.kind == piece), None) if number % 2 else None
        if named is not None:
            waiting.remove(named)
            parts.append(named)
        elif piece:
            parts.append(Text(f"<{piece}>" if number % 2 else piece))
    return (*waiting, *parts)


def answer_once(conversation: Conversation, prompt: str) -> None:
    """Write the answer to stdout as it comes, and a line end."""
    for piece in conversation.answer(prompt):
        click.echo(piece, nl=False)
    click.echo()


def talk(conversation: Conversation) -> None:
    """Read lines and answer them until ``/exit`` or the end of the input."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (gives input() arrow keys and a history; Windows has none)
    note("/help lists what else you can type. /exit ends.")
    while (line := read_line()) is not None:
        if not line:
            continue
        if line.startswith("/"):
            if obey(conversation, line):
                return
            continue
        reply(conversation, line)


def read_line() -> str | None:
    """The next line without the space around it, None at the end of the input. Ctrl-C empties the line."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except KeyboardInterrupt:
        note("\n/exit or Ctrl-D ends.")
        return ""
    except EOFError:
        note("" if sys.stdin.isatty() else None)
        return None


def reply(conversation: Conversation, line: str) -> None:
    """Write the answer as it comes. Ctrl-C breaks it off; a conversation that became too long is told so."""
    try:
        with contextlib.closing(conversation.answer(line)) as pieces:
            for piece in pieces:
                click.echo(piece, nl=False)
        click.echo()
    except KeyboardInterrupt:
        note(" (stopped)")
    except DataError as error:
        note(f"{error}. /clear starts anew")


def obey(conversation: Conversation, line: str) -> bool:
    """Do what a ``/`` word says. True when it ends the conversation."""
    word, _, rest = line.partition(" ")

    def set_system() -> None:
        conversation.system = rest.strip() or None
        note(f"system text: {conversation.system}" if conversation.system else "no system text")

    def clear() -> None:
        conversation.clear()
        note("forgotten")

    def show() -> None:
        path = Path(rest.strip()).expanduser()
        if not path.is_file():
            note(f"{rest.strip() or word}: there is no such file")
            return
        kind: Any = word.removeprefix("/")
        conversation.showing.append(Media(kind, str(path)))
        note(f"{path} is shown with the next line")

    known: dict[str, Callable[[], None]] = {
        "/clear": clear, "/system": set_system, "/help": lambda: note(HELP), "/image": show, "/video": show,
        "/audio": show,
    }  # fmt: skip
    if word in ("/exit", "/quit"):
        return True
    known.get(word, lambda: note(f"{word} is not known.\n{HELP}"))()
    return False


def note(text: str | None) -> None:
    """Say something that is no answer: to stderr, so that stdout holds answers alone."""
    if text is not None:
        click.echo(text, err=True)
