"""What ``ftk template show`` prints: a few facts, then the formats or the Jinja source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ftk import ChatTemplate
from ftk_data.formats import tool_format_of
from ftk_data.rendering import declared, template_options, thinking_of
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ftk_inspect.asked import has_model, is_own, renderer_of
from ftk_inspect.habits import default_system_of, dialects_of, marks_of, variables_read

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_data import ToolFormat
    from ftk_data.rendering import Renderer

Fact = tuple[str, str]
FORMATS = (
    "prefix", "system_note", "system", "system_in_user", "user", "generation", "assistant", "assistant_end", "tool",
    "tool_group", "trim", "media",
)  # fmt: skip
"""The fields of a declared template that say what is written, in the order in which they are."""

ALWAYS = ("system", "user", "generation", "assistant")
"""Those that are shown even when they are the default."""


def print_sheet(run: Run) -> None:
    """Print what there is to know about the run's template: coloured on a terminal, plain lines in a pipe."""
    console = Console(highlight=False)
    spec = run.template
    title = own_title(run) if is_own(run) and has_model(run) else spec.name
    print_line(console, Text.assemble((title, "bold"), "  ", spec.summary))
    print_facts(console, list(own_facts(run) if is_own(run) and has_model(run) else facts_of(run)))
    if is_own(run) and not has_model(run):
        return
    console.print()
    if is_own(run) or spec.source:
        print_source(console, renderer_of(run).jinja())
    else:
        print_facts(console, list(formats_of(spec)))


def print_line(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True)


def print_facts(console: Console, facts: list[Fact]) -> None:
    """Names in one column and values in the other, which wraps on a terminal only."""
    width = max((len(name) for name, _ in facts), default=0)
    if not console.is_terminal:
        for name, value in facts:
            print_line(console, Text(f"{name:<{width}}  {value}"))
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value))
    console.print(table)


def print_source(console: Console, source: str) -> None:
    """Jinja source: coloured on a terminal, as it is in a pipe."""
    if console.is_terminal:
        console.print(Syntax(source, "jinja", word_wrap=True, background_color="default"))
    else:
        print_line(console, Text(source))


def quoted(text: str | None) -> str:
    """A text with its newlines as ``\\n``, in quotes; ``none`` for None."""
    return "none" if text is None else json.dumps(text, ensure_ascii=False)


def facts_of(run: Run) -> Iterator[Fact]:
    """What the spec of a template says about it, with what the command line or the YAML changes."""
    spec = run.template
    options = template_options(run)
    yield "comes from", where_declared(run, spec)
    if spec.source:
        yield "file", spec.source
    if spec.target:
        yield "rendered by", f"{spec.target} (depends on the model; add --model MODEL to see more)"
        return
    yield "model types", ", ".join(spec.model_types) or "none; chosen by its name only"
    # without a tokenizer a renderer can only guess at tokens
    stop = renderer_of(run).stop if has_model(run) else spec.stop
    yield "stop words", " ".join(map(quoted, stop)) or "the tokenizer's end token"
    default = options.default_system
    yield "default system", quoted(spec.default_system if default is None else default)
    yield "tool dialect", dialect_of_spec(run, spec)
    yield "thinking", " … ".join(map(quoted, spec.thinking)) if spec.thinking else thinking_of_source(run)


def dialect_of_spec(run: Run, spec: ChatTemplate) -> str:
    """The dialect that a declared template writes, a whole one's own, or why there is none."""
    form = tool_format_of(spec, cast("ToolFormat | None", run.plan.one("tool_format")))
    if form:
        return f"{form.name} ({form.summary})"
    return found_dialect(run, renderer_of(run)) if spec.source else "none; conversations with tools are refused"


def thinking_of_source(run: Run) -> str:
    if not run.template.source:
        return "none"
    return thinking_fact(run, renderer_of(run).jinja())


def own_title(run: Run) -> str:
    return str(run.value("model_name_or_path"))


def own_facts(run: Run) -> Iterator[Fact]:
    """What can be found out about a model's own template by rendering with it."""
    renderer = renderer_of(run)
    source = renderer.jinja()
    yield "comes from", where_own(run)
    yield "tokens", ", ".join(f"{key} {value}" for key, value in run.tokenizer.special_tokens_map.items())
    yield "stop words", " ".join(map(quoted, renderer.stop)) or "none"
    yield "default system", quoted(default_system_of(renderer))
    yield "tool dialect", found_dialect(run, renderer)
    yield "thinking", thinking_fact(run, source)
    yield "reads", ", ".join(variables_read(source))


def found_dialect(run: Run, renderer: Renderer) -> str:
    """Which installed dialects read a call that the template has written; those of its own plugin go first."""
    registry = run.plan.registry
    who = where_declared(run, run.template)
    forms = [cast("ToolFormat", form) for form in registry.specs("tool_format").values()]
    forms.sort(key=lambda form: (registry.record_of(form).who != who, form.name != run.template.name))
    found, why = dialects_of(renderer, forms)
    also = f"; also read by {', '.join(form.name for form in found[1:])}" if found[1:] else ""
    return f"{found[0].name} ({found[0].summary}){also}" if found else why


def thinking_fact(run: Run, source: str) -> str:
    """The reasoning marks that a source holds, and the variable that switches them."""
    specs = [cast("ChatTemplate", spec) for spec in run.plan.registry.specs("template").values()]
    marks = marks_of(source, [spec.thinking for spec in specs if spec.thinking])
    switch = "; enable_thinking is its switch" if "enable_thinking" in source else ""
    return (" … ".join(map(quoted, marks)) if marks else "none") + switch


def formats_of(spec: ChatTemplate) -> Iterator[Fact]:
    """The formats of a declared template that say something."""
    defaults = {field.name: field.default for field in fields(ChatTemplate)}
    for name in FORMATS:
        value: Any = getattr(spec, name)
        if name in ALWAYS or (value and value != defaults[name]):
            yield name, shown(value)


def shown(value: Any) -> str:
    """A format, a pair of them, a switch, or a mapping, as text."""
    if isinstance(value, tuple):
        return " … ".join(map(quoted, value))
    if isinstance(value, str):
        return quoted(value)
    return "yes" if value is True else json.dumps(dict(value), ensure_ascii=False)


def where_declared(run: Run, spec: ChatTemplate) -> str:
    """The distribution that declares a template."""
    return run.plan.registry.record_of(spec).who


def where_own(run: Run) -> str:
    """The file in the model's folder that holds its template, the model where the folder is on the hub.

    A model without a template gets the declared one that fits; then it is that one's distribution.
    """
    if not run.tokenizer.chat_template:
        spec = stand_in(run)
        who = f"template {spec.name} of {where_declared(run, spec)}" if spec else "a declared template"
        return f"{who}, which fits: {run.model_path} brings none"
    folder = Path(run.model_path)
    kinds = run.tokenizer.chat_template
    several = f" (default; there is also {', '.join(k for k in kinds if k != 'default')})" * isinstance(kinds, dict)
    for name in ("chat_template.jinja", "tokenizer_config.json", "chat_template.json"):
        path = folder / name
        if path.is_file() and (path.suffix == ".jinja" or "chat_template" in path.read_text(encoding="utf-8")):
            return f"{path}{several}"
    return f"{run.model_path}{several}"


def stand_in(run: Run) -> ChatTemplate | None:
    """The declared template that renders for a model without one of its own."""
    source = renderer_of(run).jinja()
    for found in run.plan.registry.specs("template").values():
        spec = cast("ChatTemplate", found)
        if not spec.target and declared(spec, run.tokenizer, template_options(run), thinking_of(run)).jinja() == source:
            return spec
    return None
