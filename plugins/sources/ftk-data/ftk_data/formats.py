"""Declared formats as a Jinja chat template.

The formats of a :class:`ftk.ChatTemplate` are written out as Jinja source, and that source renders the training rows as
well as the prompts, and is saved with the model. So there is one meaning of a template, and what other software does
with the saved one is what was trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.resources import files

from ftk import ChatTemplate, ConfigError, PluginError
from ftk.specs import load_target

from ftk_data.tools import ToolFormat

MARKS = {"generation": "if true", "endgeneration": "endif"}
MEDIA_KEYS = {"image": ("image", "image_url"), "video": ("video",), "audio": ("audio", "audio_url", "input_audio")}
"""How the OpenAI API and the published templates call a part of a message that is a medium."""


def tool_format_of(spec: ChatTemplate, chosen: ToolFormat | None = None) -> ToolFormat | None:
    """The dialect of a template: the one that the YAML chose, or its own.

    Raises ConfigError when the template is a whole one, which writes its dialect itself.
    """
    if chosen and spec.source:
        raise ConfigError(f"tool_format: {chosen.name}: template {spec.name} writes its own dialect only. Take it out")
    return chosen or (load_target(spec.tool_format, spec.id) if spec.tool_format else None)


def jinja_source(spec: ChatTemplate, default_system: str | None = None, tools: ToolFormat | None = None) -> str:
    """The Jinja source of a declared template; ``default_system`` takes the place of the spec's own, ``tools`` too.

    Raises PluginError when a format names something else than content, bos and eos.
    """
    default = spec.default_system if default_system is None else default_system
    if spec.source:
        given = f"{{%- set default_system = {'none' if default is None else _literal(default)} %}}\n"
        return given + _whole(spec.source, spec.id)
    tools = tool_format_of(spec, tools)
    parts = [
        *_joined(spec),
        _output(spec.prefix),
        *_system(spec, tools, default),
        *_thinking_start(spec),
        "{%- for message in messages %}",
        "{%- set content = joined(message.content or '') %}",
        *_user(spec, tools),
        *_assistant(spec, tools),
        *_tool(spec, tools),
        *_late_system(spec),
        "{%- endif %}",
        "{%- endfor %}",
        "{%- if add_generation_prompt %}",
        _output(spec.generation),
        *_thinking_off(spec),
        "{%- endif %}",
    ]
    return "\n".join(part.strip("\n") for part in parts if part)


def without_marks(source: str) -> str:
    """The source without ``generation`` blocks, which not every reader of chat templates knows.

    A block of another kind takes their place, so that the control of whitespace stays as it is.
    """
    return re.sub(r"(\{%[-+]?\s*)((?:end)?generation)(?=\s*[-+]?%\})", lambda tag: tag[1] + MARKS[tag[2]], source)


def _output(form: str, content: str = "content") -> str:
    """``"<s>{content}"`` as a Jinja output; empty for an empty format."""
    known = {"content": content, "bos": "bos_token", "eos": "eos_token"}
    terms = []
    for text, name in re.findall(r"([^{}]+)|\{(\w+)\}", form):
        if name and name not in known:
            raise PluginError(f"format {form!r}: {{{name}}} is unknown. Known: {{content}}, {{bos}}, {{eos}}")
        terms.append(known[name] if name else _literal(text))
    return "{{- " + " ~ ".join(terms) + " }}" if terms else ""


def _whole(source: str, who: str) -> str:
    """The text of a template that a plugin carries as a file."""
    package, _, file = source.partition(":")
    try:
        return files(package).joinpath(file).read_text(encoding="utf-8")
    except (ImportError, OSError) as cause:
        raise PluginError(f"{who}: source {source} cannot be read: {cause}") from cause


def _joined(spec: ChatTemplate) -> Iterable[str]:
    """A macro: content that is a list of parts as one text, with what stands for each medium."""
    yield "{%- macro joined(content) %}"
    yield "{%- if content is string %}"
    yield "{{- content }}"
    yield "{%- else %}"
    yield "{%- for part in content %}"
    yield "{%- if part.type == 'text' %}"
    yield "{{- part.text }}"
    for kind, shown in spec.media.items():
        yield f"{{%- elif part.type in {json.dumps(MEDIA_KEYS[kind])} %}}"
        yield f"{{{{- {_literal(shown)} }}}}"
    yield "{%- else %}"
    yield "{{- raise_exception('a part of type ' ~ part.type ~ ' has no place in this template') }}"
    yield "{%- endif %}"
    yield "{%- endfor %}"
    yield "{%- endif %}"
    yield "{%- endmacro %}"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _captured(name: str, fragment: str) -> list[str]:
    return [f"{{%- set {name} %}}", fragment, "{%- endset %}"]


def _trimmed(spec: ChatTemplate, name: str) -> str:
    return f"{name} | trim" if spec.trim else name


def _system(spec: ChatTemplate, tools: ToolFormat | None, default: str | None) -> Iterable[str]:
    yield "{%- set lead = namespace(system='', tools=tools) %}"
    yield "{%- set system = " + ("none" if default is None else _literal(default)) + " %}"
    yield "{%- if messages and messages[0].role == 'system' %}"
    first = _trimmed(spec, "joined(messages[0].content or '')")
    yield f"{{%- set system = {first} %}}"
    yield "{%- set messages = messages[1:] %}"
    yield "{%- endif %}"
    if spec.system_note:
        yield from _captured("system", _output(spec.system_note) + "{{- system or '' }}")
    if tools and tools.system:
        yield "{%- if tools %}"
        yield from _captured("system", tools.system)
        yield "{%- endif %}"
    yield "{%- if system is not none %}"
    if spec.system_in_user is None:
        yield _output(spec.system, "system")
    else:
        yield from _captured("system", _output(spec.system_in_user, "system"))
        yield "{%- set lead.system = system %}"
    yield "{%- endif %}"


def _user(spec: ChatTemplate, tools: ToolFormat | None) -> Iterable[str]:
    yield "{%- if message.role == 'user' %}"
    if spec.system_in_user is not None:
        yield "{%- set content = lead.system + content %}"
        yield "{%- set lead.system = '' %}"
    if spec.trim:
        yield "{%- set content = content | trim %}"
    if tools and tools.user:
        yield "{%- if lead.tools %}"
        yield from _captured("content", tools.user)
        yield "{%- set lead.tools = none %}"
        yield "{%- endif %}"
    yield _output(spec.user)


def _assistant(spec: ChatTemplate, tools: ToolFormat | None) -> Iterable[str]:
    yield "{%- elif message.role == 'assistant' %}"
    if spec.trim:
        yield "{%- set content = content | trim %}"
    yield from _thinking_answer(spec)
    yield _output(spec.generation)
    if tools:
        yield "{%- if message.tool_calls %}"
        yield from _captured("content", tools.answer)
        yield "{%- endif %}"
    yield "{%- generation %}"
    yield _output(spec.assistant, "shown ~ content" if spec.thinking else "content")
    yield "{%- endgeneration %}"
    yield _output(spec.assistant_end)


def _tool(spec: ChatTemplate, tools: ToolFormat | None) -> Iterable[str]:
    if spec.tool is None:
        return
    yield "{%- elif message.role == 'tool' %}"
    if tools:
        yield from _captured("content", tools.result)
    before, after = spec.tool_group
    if before:
        yield "{%- if loop.first or loop.previtem.role != 'tool' %}"
        yield _output(before)
        yield "{%- endif %}"
    yield _output(spec.tool)
    if after:
        yield "{%- if loop.last or loop.nextitem.role != 'tool' %}"
        yield _output(after)
        yield "{%- endif %}"


def _late_system(spec: ChatTemplate) -> Iterable[str]:
    if spec.system_in_user is None:
        yield "{%- elif message.role == 'system' %}"
        if spec.trim:
            yield "{%- set content = content | trim %}"
        yield _output(spec.system)
    yield "{%- else %}"
    yield "{{- raise_exception('a turn of ' + message.role + ' has no place in this template') }}"


def _thinking_start(spec: ChatTemplate) -> Iterable[str]:
    """Reasoning belongs to the answers after the last question; what came before is history."""
    if spec.thinking:
        yield "{%- set last = namespace(question=-1) %}"
        yield "{%- for message in messages %}"
        yield "{%- if message.role == 'user' %}"
        yield "{%- set last.question = loop.index0 %}"
        yield "{%- endif %}"
        yield "{%- endfor %}"
        yield "{%- set keep = preserve_thinking is defined and preserve_thinking %}"


def _thinking_answer(spec: ChatTemplate) -> Iterable[str]:
    """Take the reasoning out of the content and decide whether it is shown."""
    if not spec.thinking:
        return
    start, end = (_literal(mark.strip()) for mark in spec.thinking)
    yield "{%- set thought = message.reasoning_content or '' %}"
    yield f"{{%- if not thought and {end} in content %}}"
    yield f"{{%- set thought = content.split({end})[0].split({start})[-1] %}}"
    yield f"{{%- set content = content.split({end})[-1].lstrip('\\n') %}}"
    yield "{%- endif %}"
    yield "{%- set thought = thought.strip('\\n') %}"
    yield "{%- set shown = '' %}"
    yield "{%- if keep or (loop.index0 > last.question and (loop.last or thought)) %}"
    yield f"{{%- set shown = {_literal(spec.thinking[0])} + thought + {_literal(spec.thinking[1])} %}}"
    yield "{%- set content = content.lstrip('\\n') %}"
    yield "{%- endif %}"


def _thinking_off(spec: ChatTemplate) -> Iterable[str]:
    if spec.thinking:
        yield "{%- if enable_thinking is defined and enable_thinking is false %}"
        yield _output("".join(spec.thinking))
        yield "{%- endif %}"
