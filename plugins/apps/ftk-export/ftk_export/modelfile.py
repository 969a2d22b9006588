"""An Ollama Modelfile from the declared formats of a chat template, which Go's text/template writes there.

Ollama puts the token that begins a text before the prompt itself, so that one is left out. What it sees of a
conversation: ``.System``, the system texts, and ``.Messages``, all turns with ``.Role`` and ``.Content``.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import ChatTemplate, rundir
from ftk_data import renderer
from ftk_data.rendering import template_options

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_export import ExportFormat

log = logging.getLogger("ftk.export")
FILE = "Modelfile"


class NotInGo(ValueError):
    """A template that Go's cannot express; says why."""


def write_modelfile(folder: Path, form: ExportFormat, run: Run) -> None:
    """Write it beside the weights, where the format can be loaded by Ollama; its template is left out when it must."""
    if form.modelfile is None:
        return
    rundir.write_text(folder / FILE, modelfile(run, form.modelfile))


def modelfile(run: Run, source: str) -> str:
    """The text of the file. ``source``: what stands behind FROM."""
    lines = [f"# Made by ftk export with the template {run.template.name}. ollama create NAME -f {FILE}"]
    lines.append(f"FROM {source if source.startswith('.') else './' + source}")
    try:
        text = go_template(run.template, run.tokenizer, template_options(run).default_system)
        lines.append(f'TEMPLATE """{text}"""')
    except NotInGo as why:
        log.warning("%s: no TEMPLATE: %s. Ollama takes the one in the weights, if it knows it", FILE, why)
        lines.append(f"# no TEMPLATE: {why}")
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in renderer(run).stop]
    return "\n".join(lines) + "\n"


def go_template(spec: ChatTemplate, tokenizer: Any, default_system: str | None = None) -> str:
    """The declared formats as Go's text/template, for conversations without tools. Raises NotInGo.

    ``trim`` has no counterpart there: texts with spaces around them keep them.
    """
    if spec.source or spec.target:
        raise NotInGo(f"{spec.name} is a Jinja template, not declared formats")
    form = Formats(spec, tokenizer)
    default = spec.default_system if default_system is None else default_system
    if spec.system_note:
        default = default or ""
    turns = f'{{{{ if eq .Role "user" }}}}{form.user()}{{{{ else if eq .Role "assistant" }}}}{form.answer()}'
    if spec.system_in_user is None:
        start = f"{{{{ if not .System }}}}{form.system(default)}{{{{ end }}}}" if default is not None else ""
        turns += f'{{{{ else if eq .Role "system" }}}}{form.system()}'
    else:
        start = "{{ $lead := .System }}"
        if default:
            start += f"{{{{ if not $lead }}}}{{{{ $lead = {json.dumps(default, ensure_ascii=False)} }}}}{{{{ end }}}}"
    talk = f"{{{{ range .Messages }}}}{turns}{{{{ end }}}}{{{{ end }}}}"
    text = form.beginning() + start + talk + form.written(spec.generation)
    if '"""' in text:
        raise NotInGo(f'{spec.name} writes """, which ends a text in a Modelfile')
    return text


class Formats:
    """The formats of one template as Go's."""

    def __init__(self, spec: ChatTemplate, tokenizer: Any) -> None:
        self.spec = spec
        self.ends = {"bos": tokenizer.bos_token or "", "eos": tokenizer.eos_token or ""}
        rest = (spec.prefix.removeprefix("{bos}"), spec.user, spec.system, spec.system_in_user or "", spec.assistant)
        if any("{bos}" in one for one in rest):
            raise NotInGo(f"{spec.name} writes the first token of a text before every turn, and Ollama writes its own")

    def beginning(self) -> str:
        return self.written(self.spec.prefix.removeprefix("{bos}"))

    def system(self, content: str | None = None) -> str:
        """The system turn, around ``content`` or what the conversation says."""
        inner = "{{ .Content }}" if content is None else _plain(content)
        return self.written(self.spec.system, _plain(self.spec.system_note) + inner)

    def user(self) -> str:
        inner = "{{ .Content }}"
        if self.spec.system_in_user is not None:
            lead = self.written(self.spec.system_in_user, _plain(self.spec.system_note) + "{{ $lead }}")
            inner = f'{{{{ if $lead }}}}{lead}{{{{ $lead = "" }}}}{{{{ end }}}}{inner}'
        return self.written(self.spec.user, inner)

    def answer(self) -> str:
        spec = self.spec
        return self.written(spec.generation) + self.written(spec.assistant) + self.written(spec.assistant_end)

    def written(self, form: str, content: str = "{{ .Content }}") -> str:
        """A format with ``content``, Go's own text, in its place."""
        known = {"content": content, **{name: _plain(text) for name, text in self.ends.items()}}
        return "".join(known[name] if name else _plain(text) for text, name in re.findall(r"([^{}]+)|\{(\w+)\}", form))


def _plain(text: str) -> str:
    """Text as Go's template writes it unchanged."""
    return text.replace("{{", '{{ "{{" }}')
