"""Tools and calls as gpt-oss writes them: a TypeScript namespace, and a call to one of its functions a turn."""

from __future__ import annotations

import json
import re
from importlib.resources import files

from ftk_data.tools import ToolFormat

# The macros that write types stand at the start of the template, which has to be one file; they are not written twice.
MACROS = files("ftk_template_gpt_oss").joinpath("gpt_oss.jinja").read_text("utf-8").partition("{#- end of the tools")[0]

GPT_OSS = ToolFormat(
    "gpt_oss",
    target="ftk_template_gpt_oss.tools:read",
    summary="gpt-oss: TypeScript types, one call a turn in the commentary channel",
    system=MACROS
    + r"""
    {{- system + "\n\n" if system }}
    {{- namespace_of(tools) }}""",
    answer=r"""
    {%- set call = message.tool_calls[0].function %}
    {%- if message.tool_calls | length != 1 %}
        {{- raise_exception("this family makes one call a turn") }}
    {%- elif "<|" in content or "<" in call.name or call.name != call.name | trim or not call.name %}
        {{- raise_exception("the content or the name of the function holds what looks like a control token") }}
    {%- endif %}
    {{- "<|channel|>analysis<|message|>" ~ content ~ "<|end|><|start|>assistant" if content }}
    {{- " to=functions." ~ call.name ~ "<|channel|>commentary json<|message|>" }}
    {{- call.arguments if call.arguments is string else call.arguments | tojson }}""",
    result=r"{{- content | tojson }}",
)

THOUGHT = r"(?:<\|channel\|>(?:analysis|commentary)<\|message\|>(?P<content>[^<]*(?:<(?!\|)[^<]*)*)<\|end\|>)?"
# the models themselves name the function after the channel and mark the type of what follows
TO = r"(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? to=functions\.(?P<name>[^<]+?)"
CALL = re.compile(THOUGHT + TO + r"(?:<\|channel\|>commentary)? ?(?:<\|constrain\|>)?(?:json)?<\|message\|>")


def read(text, tools=()):
    """The call as :data:`GPT_OSS` writes it, or the models do."""
    from ftk import ToolCall

    found = CALL.match(text)
    try:
        arguments, _ = json.JSONDecoder().raw_decode(text, found.end()) if found else (None, 0)
    except json.JSONDecodeError:
        return text, ()
    if not isinstance(arguments, dict):
        return text, ()
    return found["content"] or "", (ToolCall(found["name"], arguments),)
