"""``ftk template check``: the named template against the model's own, and whether answers can be learnt with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ftk import DataError, Message
from rich.console import Console
from rich.text import Text

from ftk_inspect.asked import open_model, open_template, renderer_of, variables_of
from ftk_inspect.conversations import CASES, Case, adapted
from ftk_inspect.jinja import REFUSALS, tokens_of, write

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_data.rendering import Renderer

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
BEFORE, AFTER = 40, 60
"""How many characters of a text are shown around the place where two differ."""


class Written(NamedTuple):
    """What a template makes of a conversation: its text, or why it refuses."""

    text: str
    refused: str = ""


class Finding(NamedTuple):
    """One line of the result. ``good`` is None for what is neither right nor wrong; ``details`` go below it."""

    good: bool | None
    title: str
    details: tuple[str, ...] = ()


def check_template(model: str, name: str | None, words: Sequence[str]) -> bool:
    """Print the findings; True when all is well. Raises FtkError subclasses for what cannot be opened."""
    console = Console(highlight=False)
    good = True
    if name is None:
        run = open_model(model, words)
    else:
        own = open_model(model, [*words, "--template", "null"])  # also where a YAML names another
        run = open_template(name, words, model=str(own.value("model_name_or_path")))
        run.tokens = own.tokens
        findings = list(compared(own, run, own_name=model, name=name))
        good = show_all(console, findings, "DIFFERS")
        same = sum(finding.good is not False for finding in findings)
        count = f"{same} of {len(findings)} conversations are written the same by {name} and {model}"
        console.print(Text(count, style="bold"), Text(), sep="\n", soft_wrap=True)
    console.print(Text(f"What is learnt with {name or model}", style="bold"), soft_wrap=True)
    return show_all(console, [stop_finding(run), *notes_of(run), *prefix_findings(renderer_of(run))], "WRONG") and good


def show_all(console: Console, findings: Sequence[Finding], bad: str) -> bool:
    """Print findings, a line each with its details below; True when none is bad."""
    marks = {True: ("ok", "green"), False: (bad, "bold red"), None: ("note", "yellow")}
    for finding in findings:
        mark, style = marks[finding.good]
        console.print(Text.assemble((f"{mark:<7}", style), "  ", finding.title), soft_wrap=True)
        for detail in finding.details:
            console.print(Text(f"         {detail}"), soft_wrap=True)
    return all(finding.good is not False for finding in findings)


def compared(own: Run, run: Run, *, own_name: str, name: str) -> Iterator[Finding]:
    """Each built-in conversation through both templates."""
    write_own, write_named = (partial(written, renderer_of(one).jinja(), one) for one in (own, run))
    for case in CASES:
        yield difference(case.name, (own_name, write_own(case)), (name, write_named(case)))


def written(source: str, run: Run, case: Case) -> Written:
    """A conversation through a template's source, with what its families expect: parsed arguments, else their text."""
    key = next((key for key in REASONING_KEYS if key in source), REASONING_KEYS[0])
    variables = {**tokens_of(run), **variables_of(run), "add_generation_prompt": case.prompt, **case.kwargs}
    refused = ""
    for text_arguments in (False, True):
        messages = list(adapted(case.messages, key, text_arguments=text_arguments))
        try:
            return Written(write(source, messages, tools=case.tools, **variables))
        except REFUSALS as error:
            refused = refused or str(error) or type(error).__name__
    return Written("", refused)


def difference(title: str, one: tuple[str, Written], other: tuple[str, Written]) -> Finding:
    """Whether two templates write the same, with what stands around the first difference."""
    (_, first), (_, second) = one, other
    if first.refused and second.refused:
        return Finding(True, f"{title} (both refuse)")
    if first.refused or second.refused:
        return Finding(False, title, tuple(_aligned((name, _what(text)) for name, text in (one, other))))
    if first.text == second.text:
        return Finding(True, title)
    at = num_shared(first.text, second.text)
    line = first.text.count("\n", 0, at) + 1
    shared = first.text[max(0, at - BEFORE) : at]
    where = f"from character {at + 1}, line {line}" + (f", after {_quoted(shared)}" if shared else "")
    return Finding(False, title, (where, *_aligned((name, _rest(text.text[at:])) for name, text in (one, other))))


def num_shared(one: str, other: str) -> int:
    """How many characters two texts share at their start."""
    most = min(len(one), len(other))
    return next((i for i in range(most) if one[i] != other[i]), most)


def _aligned(lines: Iterable[tuple[str, str]]) -> list[str]:
    pairs = list(lines)
    width = max(len(name) for name, _ in pairs)
    return [f"{name:<{width}}  {text}" for name, text in pairs]


def _what(written: Written) -> str:
    return f"refuses: {written.refused}" if written.refused else _rest(written.text)


def _rest(text: str) -> str:
    return f"{_quoted(text[:AFTER])}{' …' if len(text) > AFTER else ''}" if text else "ends here"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


QUESTIONS = (Message("user", "One and one?"), Message("assistant", "Two."), Message("user", "And one more?"))
TALK = (*QUESTIONS, Message("assistant", "Three."))


def stop_finding(run: Run) -> Finding:
    """Whether every trained text ends with a token of the tokenizer that generation stops at."""
    renderer = renderer_of(run)
    try:
        rows = renderer.render(TALK)
    except DataError as error:
        return Finding(False, f"cannot write a conversation of two turns: {error}")
    trained = [segment.text for row in rows for segment in row if segment.trained]
    if not trained:
        return Finding(False, "no answer is trained")
    for text in trained:
        ends = sorted((word for word in renderer.stop if text.endswith(word)), key=len)
        if not ends:
            words = " ".join(map(_quoted, renderer.stop)) or "nothing"
            return Finding(False, f"the stop token is not trained: {_quoted(text)} ends with none of {words}")
    word, number = ends[-1], run.tokenizer.convert_tokens_to_ids(ends[-1])
    ids = run.tokenizer(trained[-1], add_special_tokens=False)["input_ids"]
    if ids[-1] != number:
        return Finding(False, f"the stop word {_quoted(word)} is no token of the tokenizer, which cuts it into pieces")
    return Finding(True, f"the stop token {_quoted(word)} (id {number}) is trained, and generation stops at it")


def notes_of(run: Run) -> Iterator[Finding]:
    """What other software will stop at, when that isn't the trained token."""
    path = Path(run.model_path) / "generation_config.json"
    if not path.is_file():
        return
    ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    known = set(ends if isinstance(ends, list) else [ends]) - {None}
    ours = {run.tokenizer.convert_tokens_to_ids(word) for word in renderer_of(run).stop}
    if known and not known & ours:
        tokens = ", ".join(map(str, run.tokenizer.convert_ids_to_tokens(sorted(known))))
        yield Finding(
            None, f"{path.name} of the model stops at {tokens}, so other software may not stop where ftk does"
        )


def prefix_findings(renderer: Renderer) -> Iterator[Finding]:
    """Whether the prompt of turn 2 begins with the row of turn 1, without reasoning and with it."""
    thought = Message("assistant", "Two.", reasoning="Counting: one, two.")
    yield prefix_finding(renderer, QUESTIONS, "")
    yield prefix_finding(renderer, (QUESTIONS[0], thought, QUESTIONS[2]), ", with reasoning")


def prefix_finding(renderer: Renderer, messages: Sequence[Message], kind: str) -> Finding:
    """Whether the prompt of the last question begins with the row that its past is trained as."""
    try:
        row = "".join(segment.text for segment in renderer.render(messages[:-1])[-1])
        prompt = renderer.prompt_text(messages)
    except DataError as error:
        return Finding(None, f"turns{kind} cannot be written: {error}")
    if prompt.startswith(row):
        return Finding(True, f"the prompt of turn 2 begins with the row of turn 1{kind}, so they share a row")
    at = num_shared(row, prompt)
    why = f"the prompt of turn 2 rewrites turn 1{kind}, so each answer is trained in a row of its own"
    return Finding(None, why, tuple(_aligned((("row", _rest(row[at:])), ("prompt", _rest(prompt[at:]))))))
