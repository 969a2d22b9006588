"""Rows for a terminal, a pipe and a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from ftk_inspect.pieces import Part, Piece
from ftk_inspect.sheet import quoted

Shades = Mapping[tuple[bool, bool], tuple[str, str]]
"""(trained, odd document of a pack) → the colours of its tokens in turn."""
SHADES: Shades = {
    (True, False): ("black on #8fd694", "black on #b9e8bc"),
    (True, True): ("black on #7cc4ee", "black on #b0dcf5"),
    (False, False): ("black on #d0d0d0", "black on #e4e4e4"),
    (False, True): ("black on #e6cfa8", "black on #f2e2c6"),
}
"""Readable on dark and light terminals."""
SIXTEEN: Shades = {
    (True, False): ("black on green", "black on bright_green"),
    (True, True): ("black on cyan", "black on bright_cyan"),
    (False, False): ("black on white", "black on bright_white"),
    (False, True): ("black on yellow", "black on bright_yellow"),
}
"""Where there are no more colours than that, in which SHADES would all be white."""

NAMES: Mapping[tuple[bool, bool], str] = {
    (True, False): "trained",
    (False, False): "not trained",
    (True, True): "trained, next document",
    (False, True): "not trained, next document",
}


def print_rows(rows: Sequence[Sequence[Part]], total: int | None) -> None:
    """Print rows: as coloured tokens where there are colours, else a line for each stretch."""
    console = Console(highlight=False)
    coloured = console.is_terminal and console.color_system is not None
    if coloured:
        shades = SHADES if console.color_system in ("256", "truecolor") else SIXTEEN
        console.print(legend(any(part.num_documents > 1 for parts in rows for part in parts), shades))
    for number, parts in enumerate(rows, start=1):
        for part in parts:
            if coloured or number > 1:
                console.print()
            console.print(Text(heading(number, total, part), style="bold"), soft_wrap=True)
            if coloured:
                console.print(tokens(part, shades))
            else:
                print_stretches(console, part)


def heading(number: int, total: int | None, part: Part) -> str:
    """``row 1 of 20: 57 tokens, 23 trained, 2 documents``."""
    title = f" ({part.title})" if part.title else ""
    packed = f", {part.num_documents} documents" if part.num_documents > 1 else ""
    whole = f" of {total:,}" if total is not None else ""
    return f"row {number}{whole}{title}: {part.num_tokens:,} tokens, {part.num_trained:,} trained{packed}"


def legend(packed: bool, shades: Shades) -> Text:
    """What the colours say."""
    made = Text("tokens: ")
    for key, name in NAMES.items():
        if packed or not key[1]:
            for shade, text in zip(shades[key], _halves(name), strict=True):
                made.append(text, style=shade)
            made.append("  ")
    return made


def _halves(name: str) -> tuple[str, str]:
    """A name cut in two, to show that neighbouring tokens have two shades."""
    middle = (len(name) + 1) // 2
    return f" {name[:middle]}", f"{name[middle:]} "


def tokens(part: Part, shades: Shades) -> Text:
    """The pieces of a part, neighbours in different shades."""
    made = Text()
    for number, piece in enumerate(part.pieces):
        shade = shades[piece.trained, piece.document % 2 == 1][number % 2]
        for text, is_end in _lines(piece):
            made.append(text, style=shade)
            if is_end:
                made.append("\n")
    return made


def _lines(piece: Piece) -> list[tuple[str, bool]]:
    """The lines of a piece's text with ``↵`` for their ends; a colour after the end would fill the next line."""
    *lines, last = visible(piece.text).split("\n")
    return [*((f"{line}↵", True) for line in lines), (last, False)]


def visible(text: str) -> str:
    """A text without what a terminal would obey."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)


def print_stretches(console: Console, part: Part) -> None:
    """A line for each stretch: whether it is trained, and its text in quotes."""
    document = 0
    for stretch in part.stretches:
        if stretch.document != document:
            document = stretch.document
            console.print(f"  document {document + 1}")
        name = "trained    " if stretch.trained else "not trained"
        console.print(Text(f"  {name}  {quoted(stretch.text)}"), soft_wrap=True)


def as_dict(row: Mapping[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """A row for a program: its keys as plain values, and ``segments``: text, whether it is trained, its document."""
    made = {key: plain(value) for key, value in row.items()}
    for part in parts:
        made[f"{part.title}_segments" if part.title else "segments"] = [
            {"text": one.text, "trained": one.trained, "document": one.document} for one in part.stretches
        ]
    return made


def plain(value: Any) -> Any:
    """Arrays as lists, media as mappings, raw bytes as their number."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
