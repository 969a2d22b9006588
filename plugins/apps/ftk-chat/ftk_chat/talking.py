"""The loop that reads, answers, asks for the results of calls, and obeys ``/`` words."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from ftk import DataError, FtkError, Media

from ftk_chat import history
from ftk_chat.conversation import Conversation, read_tools
from ftk_chat.showing import note, show, written

HELP = """/clear         forget what was said
/system TEXT   set the system text; without TEXT, take it out
/image FILE    show an image with the next line; also /video and /audio
/tools FILE    tools that the model may call; without FILE, which there are; off takes them away
/adapter NAME  let another adapter answer; without NAME, which there are; off is the run's own
/thoughts      the whole of what was thought before the last answer
/save FILE     write what was said as JSON; /load FILE goes on with it
/help          these lines
/exit          end; so does Ctrl-D. Ctrl-C stops an answer"""
ABOUT_RESULTS = "type its result; /refuse WHY refuses it, and Ctrl-C all that are left"
REFUSED = "The user refused this call."


def answer_once(conversation: Conversation, prompt: str) -> None:
    """Write the answer to stdout as it comes, calls as a line of JSON each, and a line end."""
    said = show(conversation.answer(prompt))
    if not said and not conversation.waiting:
        click.echo()
    for call in conversation.waiting:
        click.echo(json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False))


def talk(conversation: Conversation, kept: Path | None = None) -> None:
    """Read lines and answer them until ``/exit`` or the end of the input. ``kept``: where each turn is saved."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (gives input() arrow keys and a history; Windows has none)
    note("/help lists what else you can type. /exit ends.")
    while True:
        if conversation.waiting:
            if not ask_results(conversation):
                return
        elif (line := read_line()) is None:
            return
        elif line.startswith("/"):
            if obey(conversation, line):
                return
            continue
        elif line:
            reply(conversation, line)
        if kept is not None:
            attempt(lambda: history.save(conversation, kept))


def read_line(prompt: str = "> ") -> str | None:
    """The next line without the space around it, None at the end of the input. Ctrl-C empties the line."""
    try:
        return ask(prompt)
    except KeyboardInterrupt:
        note("\n/exit or Ctrl-D ends.")
        return ""


def ask(prompt: str) -> str | None:
    """The next line, None at the end of the input. What asks for it stands on a terminal and never among answers."""
    shown = prompt if sys.stdin.isatty() else ""
    try:
        if shown and not sys.stdout.isatty():
            click.echo(shown, nl=False, err=True)
            shown = ""
        return input(shown).strip()
    except EOFError:
        note("" if sys.stdin.isatty() else None)
        return None


def reply(conversation: Conversation, line: str | None) -> None:
    """Write the answer as it comes. Ctrl-C breaks it off; a conversation that became too long is told so."""
    try:
        with contextlib.closing(conversation.answer(line)) as pieces:
            show(pieces)
    except KeyboardInterrupt:
        note(" (stopped)")
    except DataError as error:
        note(f"{error}. /clear starts anew")


def ask_results(conversation: Conversation) -> bool:
    """Ask for the result of each call that waits, then let the model go on. False at the end of the input."""
    calls = conversation.waiting
    for call in calls:
        note(f"calls {written(call)}")
    note(ABOUT_RESULTS)
    try:
        for call in calls:
            line = ask(f"{call.name}> ")
            if line is None or line in ("/exit", "/quit"):
                return False
            word, _, why = line.partition(" ")
            conversation.result(f"{REFUSED} {why}".strip() if word == "/refuse" else line)
    except KeyboardInterrupt:
        note("\nrefused")
        while conversation.waiting:
            conversation.result(REFUSED)
        return True
    reply(conversation, None)
    return True


def attempt(do: Callable[[], None], done: str | None = None) -> None:
    """Do it and say so, or say why it cannot be done."""
    try:
        do()
    except FtkError as error:
        note(str(error))
    else:
        note(done)


def obey(conversation: Conversation, line: str) -> bool:
    """Do what a ``/`` word says. True when it ends the conversation."""
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    if word in ("/exit", "/quit"):
        return True
    if word not in WORDS:
        note(f"{word} is not known.\n{HELP}")
    else:
        WORDS[word](conversation, word, rest)
    return False


def set_system(conversation: Conversation, word: str, rest: str) -> None:
    conversation.system = rest or None
    note(f"system text: {rest}" if rest else "no system text")


def clear(conversation: Conversation, word: str, rest: str) -> None:
    conversation.clear()
    note("forgotten")


def show_file(conversation: Conversation, word: str, rest: str) -> None:
    path = Path(rest).expanduser()
    if not path.is_file():
        note(f"{rest or word}: there is no such file")
        return
    kind: Any = word.removeprefix("/")
    conversation.showing.append(Media(kind, str(path)))
    note(f"{path} is shown with the next line")


def set_tools(conversation: Conversation, word: str, rest: str) -> None:
    if rest == "off":
        conversation.offer(())
    elif rest:
        attempt(lambda: conversation.offer(read_tools(Path(rest).expanduser())))
    names = [str(tool.get("function", tool).get("name")) for tool in conversation.tools]
    note(f"tools: {', '.join(names) or 'none'}")


def set_adapter(conversation: Conversation, word: str, rest: str) -> None:
    if rest == "off":
        conversation.adapter = None
    elif rest and rest not in conversation.adapters:
        note(f"{rest}: there is no such adapter. lora_modules names them")
    elif rest:
        conversation.adapter = rest
    known = ", ".join(conversation.adapters)
    who = conversation.adapter or "the run's own"
    note(f"{who} answers" + (f"; there are {known}" if known else ""))


def show_thoughts(conversation: Conversation, word: str, rest: str) -> None:
    note(conversation.thoughts() or "nothing was thought before the last answer")


def save_file(conversation: Conversation, word: str, rest: str) -> None:
    path = Path(rest).expanduser()
    if rest:
        attempt(lambda: history.save(conversation, path), f"saved: {path}")
    else:
        note("/save FILE: say which file")


def load_file(conversation: Conversation, word: str, rest: str) -> None:
    path = Path(rest).expanduser()

    def read() -> None:
        history.load(conversation, path)
        note(f"{path}: {len(conversation.messages)} messages")

    attempt(read) if rest else note("/load FILE: say which file")


WORDS: dict[str, Callable[[Conversation, str, str], None]] = {
    "/clear": clear, "/system": set_system, "/image": show_file, "/video": show_file, "/audio": show_file,
    "/tools": set_tools, "/adapter": set_adapter, "/thoughts": show_thoughts, "/save": save_file, "/load": load_file,
    "/help": lambda conversation, word, rest: note(HELP),
}  # fmt: skip
