"""Rows as one HTML page that needs nothing else: no scripts, no fonts, no pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ftk_inspect.pieces import Part, Piece
from ftk_inspect.terminal import heading

STYLE = """
:root { color-scheme: light dark; --t0: #bfe8c2; --t1: #9fdba4; --o0: #ececec; --o1: #dedede;
  --u0: #b9dff5; --u1: #98cfee; --p0: #f5e6cc; --p1: #ecd8b4; }
@media (prefers-color-scheme: dark) { :root { --t0: #1f5c2a; --t1: #2b7438; --o0: #333; --o1: #424242;
  --u0: #174f6e; --u1: #216489; --p0: #57441f; --p1: #6a552b; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.2rem; } h2 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
pre, .legend { font: 13px/1.7 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.t, .u { border-bottom: 2px solid currentColor; } i { opacity: .5; font-style: normal; }
""" + "".join(f".{kind}{shade} {{ background: var(--{kind}{shade}); }}\n" for kind in "toup" for shade in "01")

KINDS = {(True, False): "t", (False, False): "o", (True, True): "u", (False, True): "p"}
"""(trained, odd document of a pack) → the class of its tokens."""

LEGEND = (("t", "trained"), ("o", "not trained"), ("u", "trained, next document"), ("p", "not trained, next document"))


def page(title: str, rows: Sequence[Sequence[Part]], total: int | None) -> str:
    """The page. Trained tokens are underlined, too; a token's number shows when the pointer rests on it."""
    packed = any(part.num_documents > 1 for parts in rows for part in parts)
    shown = [(kind, name) for kind, name in LEGEND if packed or kind in "to"]
    legend = " ".join(f'<span class="{kind} {kind}0">{name}</span>' for kind, name in shown)
    body = "\n".join(
        f"<h2>{escape(heading(number, total, part))}</h2>\n<pre>{tokens(part)}</pre>"
        for number, parts in enumerate(rows, start=1)
        for part in parts
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="legend">{legend}</p>\n{body}\n</body>\n</html>\n'
    )


def tokens(part: Part) -> str:
    """The pieces of a part as spans, neighbours in different shades."""
    return "".join(_token(piece, number) for number, piece in enumerate(part.pieces))


def _token(piece: Piece, number: int) -> str:
    kind = KINDS[piece.trained, piece.document % 2 == 1]
    text = escape(visible(piece.text)).replace("\n", "<i>↵</i>\n")
    ids = " ".join(map(str, piece.ids))
    return f'<span class="{kind} {kind}{number % 2}" title="{ids}">{text}</span>'


def visible(text: str) -> str:
    """A text without the control characters that HTML forbids."""
    return "".join(one if one >= " " or one in "\n\t" else f"\\x{ord(one):02x}" for one in text)
