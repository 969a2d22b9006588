"""One render instead of two a turn, where it can be proved that they say the same.

Most chat templates end with a loop over the messages and with what ``add_generation_prompt`` adds, and no turn looks at
later ones. Then the render of the first i messages is what the render of all of them has before it asks for message i
(from 0), and the prompt after them is that and what ends a prompt. Whether a template is so is not guessed:

- The end, after the loop, may depend on nothing that the template has set, so it is the same for any conversation.
- The messages are handed over as a view that notes what is asked of it. Jinja renders piece by piece, so what was
  written before message i was asked for cannot depend on it, nor on there being one. Where something else than the
  loop's next step asked first (``loop.last``, ``messages[loop.index0 + 1]``, ``messages | length``), the place is not
  used, and who needs it renders anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from ftk_data.environment import OPEN, RENDER_ERRORS, environment, quick, unmarked

FLAG = "add_generation_prompt"
TURNS, NEXT, ALL = "ftk_turns", "ftk_next", "ftk_all"
"""The functions that a traced template calls: for its loop, and when it looks at the next turn or at all of them."""
HARMLESS = {"index", "index0", "first", "previtem", "cycle", "changed", "depth", "depth0"}
"""What ``loop`` knows without looking ahead."""
ELSEWHERE = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport, nodes.Block)


class Halves(NamedTuple):
    """A template in two: up to and with its last loop, which is over the messages, and what it writes after that.

    fixed: what that is without and with the generation prompt, where it depends on nothing else.
    """

    turns: jinja2.Template
    end: jinja2.Template
    fixed: tuple[str, str] | None

    def ends(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        return self.fixed or (self.end.render({**variables, FLAG: False}), self.end.render({**variables, FLAG: True}))


class Trace(NamedTuple):
    """A conversation as far as its loop wrote it. cuts: number of messages → where their render ends.

    closing and opening: what the template writes after that, without and with the generation prompt.
    """

    text: str
    spans: list[tuple[int, int]]
    cuts: Mapping[int, int]
    closing: str
    opening: str


def trace(source: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> Trace | None:
    """The trace of a conversation, or None when the template is not of the kind, or trips over something."""
    halves = halved(source)
    if halves is None:
        return None
    watch = Watch(len(messages))
    given = {**variables, "messages": View(messages, watch), TURNS: watch.turns, NEXT: watch.next, ALL: watch.all}
    try:
        for piece in halves.turns.root_render_func(halves.turns.new_context(given)):
            watch.pieces.append(piece)
        closing, opening = halves.ends(variables)
    except (*RENDER_ERRORS, SeenAll):
        return None
    return None if OPEN in closing + opening else _measured(watch, closing, opening)


def _measured(watch: Watch, closing: str, opening: str) -> Trace:
    """Cuts in pieces as cuts in characters, without the marks around answers."""
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    cuts: dict[int, int] = {}
    length = done = 0
    for message, pieces in watch.cuts.items():
        part, found = unmarked("".join(watch.pieces[done:pieces]), length)
        parts.append(part)
        spans += found
        length += len(part)
        done = pieces
        cuts[message] = length
    return Trace("".join(parts), spans, cuts, closing, opening)


class SeenAll(Exception):
    """A template has looked at all messages before it wrote the first one: there is nothing to gain."""


class Watch:
    """How far a template has looked. far: the last message that it asked for; N: that it knows there are no more.

    cuts: message → how many pieces were written when the loop over messages, and nothing else, first asked for it.
    """

    def __init__(self, num: int) -> None:
        self.num = num
        self.far = -1
        self.pieces: list[str] = []
        self.cuts: dict[int, int] = {}

    def touch(self, index: int) -> None:
        self.far = max(self.far, index)

    def turns(self, view: Any) -> Iterator[Any]:
        if not isinstance(view, View) or self.far >= self.num:
            raise SeenAll
        return self._steps(view)

    def _steps(self, view: View) -> Iterator[Any]:
        for index in range(view._start, self.num + 1):
            if index > self.far:
                self.cuts[index] = len(self.pieces)
                self.far = index
            if index < self.num:
                yield view._messages[index]

    def next(self, loop: Any) -> Any:
        self.touch(self.far + 1)
        return loop

    def all(self, loop: Any) -> Any:
        self.touch(self.num)
        return loop


class View(Sequence[Any]):
    """The messages from ``start`` on, as a list would have them; each look at them is noted."""

    def __init__(self, messages: Sequence[Any], watch: Watch, start: int = 0) -> None:
        self._messages, self._watch, self._start = messages, watch, start

    def _rest(self) -> list[Any]:
        self._watch.touch(self._watch.num)
        return list(self._messages[self._start :])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            if index.stop is None and index.step in (None, 1) and (index.start or 0) >= 0:
                return View(self._messages, self._watch, self._start + (index.start or 0))
            return self._rest()[index]
        if not isinstance(index, int) or index < 0:
            return self._rest()[index]
        self._watch.touch(min(self._start + index, self._watch.num))
        return self._messages[self._start + index]

    def __len__(self) -> int:
        return len(self._rest())

    def __bool__(self) -> bool:
        self._watch.touch(min(self._start, self._watch.num))
        return self._start < self._watch.num

    def __iter__(self) -> Iterator[Any]:
        for index in range(self._start, self._watch.num):
            self._watch.touch(index)
            yield self._messages[index]
        self._watch.touch(self._watch.num)

    def __eq__(self, other: object) -> bool:
        return self._rest() == (other._rest() if isinstance(other, View) else other)

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Any) -> list[Any]:
        return self._rest() + list(other)

    def __radd__(self, other: Any) -> list[Any]:
        return list(other) + self._rest()

    def __repr__(self) -> str:
        return repr(self._rest())


@lru_cache(maxsize=32)
def halved(source: str) -> Halves | None:
    """The halves of a template, its loop under watch; None when they cannot be told apart."""
    env = environment()
    tree = env.parse(source)
    body = [node for node in tree.body if not _sets_default(node)]
    last = max((i for i, node in enumerate(body) if isinstance(node, nodes.For)), default=None)
    if last is None or next(tree.find_all(ELSEWHERE), None):
        return None
    loop, end = body[last], body[last + 1 :]
    assert isinstance(loop, nodes.For)
    # set names would carry something of the conversation past the loop
    named = {name.name for name in tree.find_all(nodes.Name) if name.ctx in ("store", "param")}
    named |= {macro.name for macro in tree.find_all(nodes.Macro)} | {"messages", "loop"}
    asked = {name.name for node in end for name in _names(node)}
    early = {name.name for node in body[: last + 1] for name in _names(node)}
    if loop.recursive or loop.else_ or FLAG in early or asked & (named - {FLAG}):
        return None
    if any(next(node.find_all((nodes.Assign, nodes.AssignBlock, nodes.NSRef)), None) for node in end):
        return None
    loop.iter = _call(TURNS, loop.iter)
    loop.body = [_Looks().visit(node) for node in loop.body]
    made = Halves(_template(body[: last + 1]), _template(end), None)
    return made if asked - {FLAG} else made._replace(fixed=made.ends({}))


def _sets_default(node: nodes.Node) -> bool:
    """``{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}``."""
    if not isinstance(node, nodes.If) or node.elif_ or node.else_:
        return False
    test = node.test
    wanted = "undefined"
    if isinstance(test, nodes.Not):
        test, wanted = test.node, "defined"
    asks = isinstance(test, nodes.Test) and test.name == wanted and _is_flag(test.node)
    inside = [one for one in node.body if not (isinstance(one, nodes.Output) and _blank(one))]
    return asks and all(isinstance(one, nodes.Assign) and _is_flag(one.target) for one in inside) and not _written(node)


def _is_flag(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == FLAG


def _blank(node: nodes.Output) -> bool:
    return all(isinstance(one, nodes.TemplateData) and not one.data for one in node.nodes)


def _written(node: nodes.If) -> bool:
    return any(isinstance(one, nodes.Output) and not _blank(one) for one in node.body)


def _names(node: nodes.Node) -> Iterator[nodes.Name]:
    if isinstance(node, nodes.Name):
        yield node
    yield from node.find_all(nodes.Name)


def _call(name: str, argument: Any) -> nodes.Call:
    return nodes.Call(nodes.Name(name, "load"), [argument], [], None, None)


def _template(body: list[nodes.Node]) -> jinja2.Template:
    env = environment()
    tree = nodes.Template(body, lineno=1)
    tree.set_environment(env)
    for node in tree.find_all(nodes.Node):
        if node.lineno is None:
            node.lineno = 1
    return quick(jinja2.Template.from_code(env, env.compile(tree), env.make_globals(None)))


class _Looks(NodeTransformer):
    """Puts a call around each use of ``loop`` that looks ahead. Inner loops have a ``loop`` of their own."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        node.iter = self.visit(node.iter)
        return node

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        if not isinstance(node.node, nodes.Name) or node.node.name != "loop":
            return self.generic_visit(node)
        if node.attr not in HARMLESS:
            node.node = _call(NEXT if node.attr in ("last", "nextitem") else ALL, node.node)
        return node

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        return _call(ALL, node) if node.name == "loop" and node.ctx == "load" else node
