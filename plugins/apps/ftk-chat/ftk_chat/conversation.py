"""A conversation in the terminal: what was said, and the loop that reads, answers and obeys ``/`` words."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click
from ftk import DataError, Message, Prompt
from ftk.kernel_options import SamplingOptions
from ftk.types import RunningEngine

HELP = """/clear        forget what was said
/system TEXT  set the system text; without TEXT, take it out
/help         these lines
/exit         end; so does Ctrl-D. Ctrl-C stops an answer"""


class Conversation:
    """What was said, and the engine that goes on with it. ``seed`` counts on with every answer."""

    def __init__(
        self, engine: RunningEngine, options: SamplingOptions, seed: int | None = None, system: str | None = None
    ) -> None:
        self.engine, self.options, self.seed, self.system = engine, options, seed, system
        self.messages: list[Message] = []

    def answer(self, text: str) -> Iterator[str]:
        """Say ``text`` and yield the answer as it comes. An answer that is broken off is kept as far as it came.

        Raises DataError when the conversation has become too long; then nothing is added to it.
        """
        turn = Message("user", text)
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
        self.messages = []


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

    known: dict[str, Callable[[], None]] = {"/clear": clear, "/system": set_system, "/help": lambda: note(HELP)}
    if word in ("/exit", "/quit"):
        return True
    known.get(word, lambda: note(f"{word} is not known.\n{HELP}"))()
    return False


def note(text: str | None) -> None:
    """Say something that is no answer: to stderr, so that stdout holds answers alone."""
    if text is not None:
        click.echo(text, err=True)
