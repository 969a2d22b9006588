"""The two dialects of GLM: a name and a line of JSON, and since 4.5 a tag for each key and value.

In the second strings stand bare, so the tools' schemas tell them from numbers when they are read back.
"""

from __future__ import annotations

import json
import re

from ftk_data.tools import ToolFormat, parameters_of

GLM4 = ToolFormat(
    "glm4",
    target="ftk_template_glm.tools:read_glm4",
    summary="GLM-4 and GLM-Z1: a name, then JSON; one call a turn",
    system=r"""
    {{- system or "" }}
    {{- "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具" }}
    {%- for tool in tools %}
        {%- set told = tool.function or tool %}
        {{- "\n\n## " + told.name + "\n\n" + (told | tojson(indent=4)) }}
        {{- "\n在调用上述函数时，请使用 Json 格式表示调用的参数。" }}
    {%- endfor %}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- set call = message.tool_calls[0].function %}
    {%- if message.tool_calls | length != 1 or content %}
        {{- raise_exception("this family makes one call a turn and says nothing beside it") }}
    {%- elif call.name.split() != [call.name] %}
        {{- raise_exception("the name of a function is empty or holds a space") }}
    {%- endif %}
    {{- call.name ~ "\n" ~ (call.arguments if call.arguments is string else call.arguments | tojson) }}""",
)

GLM4_MOE = ToolFormat(
    "glm4_moe",
    target="ftk_template_glm.tools:read_glm4_moe",
    summary="GLM-4.5 to 4.7: keys and values in tags",
    system=r"""
    {{- system or "" }}
    {{- "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" + (tool | tojson) }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor each function call, output the function name and arguments within the following XML format:\n<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>\n<arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>\n" }}""",  # noqa: E501 (the family's own words)
    answer=r"""
    {%- if "<tool_call>" in content %}
        {{- raise_exception("the content holds <tool_call>, which starts a call") }}
    {%- endif %}
    {{- content }}
    {%- for call in message.tool_calls %}
        {%- if call.function.name.split() != [call.function.name] or "<" in call.function.name %}
            {{- raise_exception("the name of a function is empty or holds a space or <") }}
        {%- endif %}
        {{- "\n<tool_call>" ~ call.function.name ~ "\n" }}
        {%- for key, value in call.function.arguments.items() %}
            {%- set shown = value if value is string else value | tojson %}
            {%- if "</arg_key>" in key or "</arg_value>" in shown %}
                {{- raise_exception("argument " ~ key ~ " holds a closing tag of the dialect") }}
            {%- endif %}
            {{- "<arg_key>" ~ key ~ "</arg_key>\n<arg_value>" ~ shown ~ "</arg_value>\n" }}
        {%- endfor %}
        {{- "</tool_call>" }}
    {%- endfor %}""",
    result=r"""{{- "<tool_response>\n" ~ content ~ "\n</tool_response>" }}""",
)

CALL = re.compile(r"\s*<tool_call>([^\s<]+)\s*(?=<)")
PAIR = re.compile(r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
END = re.compile(r"\s*</tool_call>")


def read_glm4(text, tools=()):
    """The call as :data:`GLM4` writes it: a known name (any word without ``tools``), then only JSON."""
    from ftk import ToolCall

    name, _, rest = text.strip().partition("\n")
    if name not in parameters_of(tools) if tools else name.split() != [name]:
        return text, ()
    try:
        arguments = json.loads(rest, parse_constant=_refuse)
    except ValueError:
        return text, ()
    return ("", (ToolCall(name, arguments),)) if isinstance(arguments, dict) else (text, ())


def read_glm4_moe(text, tools=()):
    """Calls as :data:`GLM4_MOE` writes them; one that is cut short ends the list."""
    from ftk import ToolCall

    known = parameters_of(tools)
    content, _, _ = text.partition("<tool_call>")
    calls = []
    at = len(content)
    while opening := CALL.match(text, at):
        name, at = opening[1], opening.end()
        schemas = known.get(name, {})
        arguments = {}
        while pair := PAIR.match(text, at):
            arguments[pair[1]] = typed(pair[2], schemas.get(pair[1], {}))
            at = pair.end()
        closing = END.match(text, at)
        if not closing:
            break
        calls.append(ToolCall(name, arguments))
        at = closing.end()
    return (content.removesuffix("\n"), tuple(calls)) if calls else (text, ())


def typed(text, schema):
    """The value that a text stands for: itself where the schema says string only, else JSON where it is some.

    A string never stands in quotes, so what reads as a JSON string is the text with its quotes.
    """
    if schema.get("type") in ("string", ["string"]):
        return text
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
    return text if isinstance(value, str) else value


def _refuse(name):
    """NaN and its kind are no JSON."""
    raise ValueError(name)
