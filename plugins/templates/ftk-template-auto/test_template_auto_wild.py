# ruff: noqa: E501 (a template is easier to read in one line)
"""Families that golden/ has no template of, written after what their makers publish, on generated conversations with
reasoning, calls and results.

References: transformers (``render_jinja_template``) says what a prompt and a whole conversation look like; what each
template makes of an answer is written down by hand (``said``). Nothing is judged by what the code under test makes of it.
"""

import json
from dataclasses import dataclass, replace
from functools import cache

import pytest
from ftk import DataError, Message, ToolCall
from ftk_data import TemplateOptions
from ftk_data.conversations import UNSET
from ftk_data.templates import PROBE
from ftk_template_auto.own import own
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

EOS = "</s>"
TOKENS = (
    EOS, "<s>", "<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|eom_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom|>", "<|bom|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|END_OF_TURN_TOKEN|>", "<|assistant_end|>",
    "<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "[e~[", "]~b]", "<|eos|>",
    "<|extra_0|>", "<|im_assistant|>", "<|im_user|>", "<|im_middle|>", "<sep>", "<|end_of_role|>", "<|start_of_role|>",
    "<|end_of_text|>", "[INST]", "[/INST]", "[TOOL_CALLS]", "<|end_of_sentence|>", "<SPECIAL_12>", "<seed:eos>", "<seed:bos>",
)  # fmt: skip
PARTS = (
    "", " ", "\n", "x", "Hi there", "  both ends \n", PROBE, "Answer7319", "e\u0301\u200d", "a\r\nb", "{{ x }}", "{% raw %}",
    EOS, "<|im_end|>", "<|im_start|>assistant\n", "[/INST]", "<|assistant|>", "assistant", "user\n", "ß" * 300, "'", '"', "\\n",
    "None", "<|end|>\n<|user|>", "call00001", "get_weather",
)  # fmt: skip
TEXTS = st.sampled_from(PARTS) | st.lists(st.sampled_from(PARTS), max_size=3).map("".join) | st.text(max_size=8)
VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "Oslo", 'a "b"', "x\ny", "ß", "{}"])
ARGUMENTS = st.dictionaries(st.sampled_from(["city", "days", "a-b"]), VALUES | st.lists(VALUES, max_size=2), max_size=2)


class Tokenizer:
    chat_template = None

    def __init__(self, eos):
        self.special_tokens_map = {"bos_token": "<s>", "eos_token": eos}

    def get_added_vocab(self):
        return dict.fromkeys(TOKENS, 0)


@dataclass(frozen=True)
class Wild:
    """said: what an answer trains; sees the message and whether another question follows it in what is rendered (never,
    as answers are rendered last). prompt: what a row has before it, from what transformers gives as the prompt.

    key: where the template looks for reasoning; None where it has no place for it. calls: arguments are given as
    "dict" or "text", None where the template knows no calls; one: at most one call a turn. ids: how
    calls are numbered where the data say nothing. inline: it takes thoughts out
    of the text of an answer; outer: and newlines off the end of what is left. same: a conversation is one row, and that is what transformers renders. switch: what the
    YAML says of ``enable_thinking``. eos: the tokenizer's.
    """

    source: str
    said: object
    prompt: object = staticmethod(lambda prompt, message: prompt)
    key: str | None = None
    calls: str | None = None
    one: bool = False
    ids: str = "call{i:05d}"
    inline: bool = False
    outer: bool = False
    same: bool = True
    switch: object = UNSET
    eos: str = EOS


def plain(end, lead="", shown=str):
    return lambda message: lead + shown(message.content) + end


def dumped(value):
    return json.dumps(value, ensure_ascii=False)


def hermes_calls(message, first="\n"):
    text = ""
    for call in message.tool_calls:
        text += (first if text == "" else "\n") + '<tool_call>\n{"name": "' + call.name + '", "arguments": ' + dumped(call.arguments) + "}\n</tool_call>"  # fmt: skip
    return text


HERMES_TURNS = (
    "{%- if tools %}{{- '<|im_start|>system\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}"
    "{{- '# Tools\n<tools>' }}{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}{{- '\n</tools><|im_end|>\n' }}"
    "{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif %}"
    "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}"
    "{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}"
    "{%- if ns.multi_step_tool and message.role == 'user' and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}"
    "{%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{%- elif message.role == 'assistant' %}ANSWER{{- '<|im_end|>\n' }}"
    "{%- elif message.role == 'tool' %}{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\n<tool_response>\n' }}{{- message.content }}{{- '\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}{%- endif %}{%- endfor %}"
)
HERMES_CALLS = (
    "{%- for tool_call in message.tool_calls or [] %}{%- if (loop.first and content) or not loop.first %}{{- '\n' }}{%- endif %}"
    "{%- set tool_call = tool_call.function or tool_call %}"
    """{{- '<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}"""
    "{%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}"
    "{{- '}\n</tool_call>' }}{%- endfor %}"
)
GENERATION = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}EXTRA{%- endif %}"
SPLIT = (
    "{%- set content = message.content %}{%- set reasoning_content = '' %}{%- if message.reasoning_content is string %}"
    "{%- set reasoning_content = message.reasoning_content %}{%- elif '</think>' in content %}"
    "{%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
)


def qwen3(message):
    thought = (message.reasoning or "").strip("\n")
    content = message.content
    return f"<think>\n{thought}\n</think>\n\n" + content.lstrip("\n") + hermes_calls(message, "\n" if content else "") + "<|im_end|>"  # fmt: skip


def qwen35(message):
    thought, content = (message.reasoning or "").strip(), message.content.strip()
    return f"{thought}\n</think>\n\n" + content + hermes_calls(message, "\n" if content else "") + "<|im_end|>"


def qwq(message):
    """Its conversations have no thought, its prompts open one: an answer with one follows that, others the bare header."""
    content = message.content.lstrip("\n")
    said = content + hermes_calls(message, "\n" if content else "") + "<|im_end|>"
    return message.reasoning.strip("\n") + "\n</think>\n\n" + said.lstrip("\n") if message.reasoning else said


def llama31(message):
    if message.tool_calls:
        (call,) = message.tool_calls
        return '{"name": "' + call.name + '", "parameters": ' + dumped(call.arguments) + "}<|eot_id|>"
    return message.content.strip() + "<|eot_id|>"


def mistral(message):
    if message.tool_calls:
        calls = [
            '{"name": "' + one.name + '", "arguments": ' + dumped(one.arguments) + ', "id": "' + (one.id or f"call{i:05d}") + '"}'
            for i, one in enumerate(message.tool_calls, 1)
        ]  # fmt: skip
        return "[TOOL_CALLS] [" + ", ".join(calls) + "]" + EOS
    return " " + message.content + EOS


def kimi(message):
    said = message.content
    if message.tool_calls:
        said += "<|tool_calls_section_begin|>" + "".join(
            f"<|tool_call_begin|>{call.id}<|tool_call_argument_begin|>{dumped(call.arguments)}<|tool_call_end|>"
            for call in message.tool_calls
        ) + "<|tool_calls_section_end|>"  # fmt: skip
    return said + "<|im_end|>"


def minimax(message):
    thought = (message.reasoning or "").strip("\n")
    said = f"{thought}\n</think>\n\n" if thought else ""
    said += message.content
    if message.tool_calls:
        said += "\n<minimax:tool_call>\n"
        for call in message.tool_calls:
            said += f'<invoke name="{call.name}">'
            for key, value in call.arguments.items():
                said += f'\n<parameter name="{key}">{value if isinstance(value, str) else dumped(value)}</parameter>'
            said += "\n</invoke>\n"
        said += "</minimax:tool_call>"
    return said + "[e~["


def coder(message):
    said = ""
    if message.tool_calls:
        said = message.content.strip() + "\n" if message.content.strip() else ""
        for call in message.tool_calls:
            said += f"\n<tool_call>\n<function={call.name}>\n"
            for key, value in call.arguments.items():
                said += f"<parameter={key}>\n{value if isinstance(value, str) else dumped(value)}\n</parameter>\n"
            said += "</function>\n</tool_call>"
        return said + "<|im_end|>"
    return message.content + "<|im_end|>"


def v31(message):
    """An answer with a thought follows ``<think>``, one without follows ``</think>``, as the switch has it."""
    said = message.content
    if message.tool_calls:
        said += "<|calls|>" + "".join(f"<|call|>{c.name}<|sep|>{dumped(c.arguments)}<|fin|>" for c in message.tool_calls) + "<|calls_end|>"  # fmt: skip
    return (message.reasoning + "</think>" + said.lstrip("\n") if message.reasoning else said) + EOS


WILD = {
    "qwen3: history loses its thoughts, the last question decides": Wild(
        HERMES_TURNS.replace("ANSWER", SPLIT
            + "{%- if loop.index0 > ns.last_query_index %}{%- if loop.last or (not loop.last and reasoning_content) %}"
            "{{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}"
            "{%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}"
            "{%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}" + HERMES_CALLS)
        + GENERATION.replace("EXTRA", "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"),
        said=qwen3, key="reasoning_content", calls="dict", inline=True, same=False,
    ),
    "qwen3.5: the prompt opens the thought, all is stripped": Wild(
        HERMES_TURNS.replace("ANSWER", SPLIT + "{%- set content = content | trim %}{%- set reasoning_content = reasoning_content | trim %}"
            "{%- if loop.index0 > ns.last_query_index %}"
            "{{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content + '\n</think>\n\n' + content }}"
            "{%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}" + HERMES_CALLS)
        + GENERATION.replace("EXTRA", "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
            "{%- else %}{{- '<think>\n' }}{%- endif %}"),
        said=qwen35, key="reasoning_content", calls="dict", inline=True, same=False,
    ),
    "qwq: split('</think>')[-1] and a thought that only the prompt has": Wild(
        HERMES_TURNS.replace("ANSWER", "{%- set content = message.content.split('</think>')[-1].lstrip('\n') %}"
            "{{- '<|im_start|>' + message.role + '\n' + content }}" + HERMES_CALLS)
        + GENERATION.replace("EXTRA", "{{- '<think>\n' }}"),
        said=qwq, prompt=lambda prompt, message: prompt if message.reasoning else prompt.removesuffix("<think>\n"),
        key="", calls="dict", inline=True, same=False,
    ),
    "a training template with generation blocks": Wild(
        HERMES_TURNS.replace("ANSWER{{- '<|im_end|>\n' }}", "{{- '<|im_start|>assistant\n' }}{% generation %}{%- set content = message.content %}{{- content }}"
            + HERMES_CALLS + "{{- '<|im_end|>' }}{% endgeneration %}{{- '\n' }}") + GENERATION.replace("EXTRA", ""),
        said=lambda m: m.content + hermes_calls(m, "\n" if m.content else "") + "<|im_end|>", calls="dict",
    ),
    "qwen3-coder: calls as XML": Wild(
        HERMES_TURNS.replace("ANSWER", "{{- '<|im_start|>assistant\n' }}{%- if message.tool_calls %}"
            "{%- if message.content is defined and message.content is string and message.content | trim | length > 0 %}{{- message.content | trim + '\n' }}{%- endif %}"
            "{%- for tool_call in message.tool_calls %}{%- set tool_call = tool_call.function %}{{- '\n<tool_call>\n<function=' + tool_call.name + '>\n' }}"
            "{%- for name, value in tool_call.arguments | items %}{{- '<parameter=' + name + '>\n' }}"
            "{%- set value = value if value is string else value | tojson %}{{- value }}{{- '\n</parameter>\n' }}{%- endfor %}"
            "{{- '</function>\n</tool_call>' }}{%- endfor %}{%- else %}{{- message.content }}{%- endif %}")
        + GENERATION.replace("EXTRA", ""),
        said=coder, calls="dict",
    ),
    "llama 3.1: tools in the first question, dates, one call a turn, stripped": Wild(
        "{{- bos_token }}{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}"
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}{%- endif %}"
        "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}"
        "{%- else %}{%- set system_message = '' %}{%- endif %}"
        "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{%- if tools is not none %}{{- 'Environment: ipython\n' }}{%- endif %}"
        "{{- 'Today Date: ' + date_string + '\n\n' }}{{- system_message }}{{- '<|eot_id|>' }}"
        "{%- if tools_in_user_message and not tools is none %}{%- if messages | length != 0 %}"
        "{%- set first_user_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- else %}"
        "{{- raise_exception('Cannot put tools in the first user message when there is no first user message!') }}{%- endif %}"
        "{{- '<|start_header_id|>user<|end_header_id|>\n\nGiven these functions:\n\n' }}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\n\n' }}{%- endfor %}"
        "{{- first_user_message + '<|eot_id|>' }}{%- endif %}"
        "{%- for message in messages %}{%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}"
        "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
        "{%- elif 'tool_calls' in message %}{%- if not message.tool_calls|length == 1 %}{{- raise_exception('This model only supports single tool-calls at once!') }}{%- endif %}"
        "{%- set tool_call = message.tool_calls[0].function %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}"
        """{{- '{"name": "' + tool_call.name + '", ' }}{{- '"parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}" }}{{- '<|eot_id|>' }}"""
        "{%- elif message.role == 'tool' or message.role == 'ipython' %}{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' }}"
        "{%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}{{- '<|eot_id|>' }}"
        "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}",
        said=llama31, calls="dict", one=True,
    ),
    "mistral: tools before the last question, turns must alternate": Wild(
        "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}"
        "{%- else %}{%- set loop_messages = messages %}{%- endif %}{%- if not tools is defined %}{%- set tools = none %}{%- endif %}"
        "{%- set user_messages = loop_messages | selectattr('role', 'equalto', 'user') | list %}{{- bos_token }}"
        "{%- for message in loop_messages %}{%- if message['role'] == 'user' %}{%- if tools is not none and (message == user_messages[-1]) %}"
        "{{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{%- endif %}"
        "{%- if loop.last and system_message is defined %}{{- '[INST] ' + system_message + '\n\n' + message['content'] + '[/INST]' }}"
        "{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}"
        "{%- elif message.tool_calls is defined and message.tool_calls is not none %}{{- '[TOOL_CALLS] [' }}{%- for tool_call in message.tool_calls %}"
        """{%- set out = tool_call.function | tojson %}{{- out[:-1] }}{%- if not tool_call.id is defined or tool_call.id|length != 9 %}"""
        "{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{%- endif %}"
        """{{- ', "id": "' + tool_call.id + '"}' }}{%- if not loop.last %}{{- ', ' }}{%- else %}{{- ']' + eos_token }}{%- endif %}{%- endfor %}"""
        "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token }}"
        "{%- elif message['role'] == 'tool' %}"
        """{{- '[TOOL_RESULTS] {"content": ' + message.content|string + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}"""
        "{%- else %}{{- raise_exception('Only user and assistant roles are supported!') }}{%- endif %}{%- endfor %}",
        said=mistral, calls="dict", same=False,
    ),
    "kimi: roles as tokens, calls with their ids": Wild(
        "{%- if tools %}<|im_system|>tool_declare<|im_middle|>{{ tools | tojson(separators=(',', ':')) }}<|im_end|>{%- endif -%}"
        "{%- for message in messages -%}{%- if loop.first and messages[0]['role'] != 'system' -%}<|im_system|>system<|im_middle|>You are Kimi.<|im_end|>{%- endif -%}"
        "{%- if message['role'] == 'user' -%}<|im_user|>user<|im_middle|>{%- elif message['role'] == 'assistant' -%}<|im_assistant|>assistant<|im_middle|>"
        "{%- else -%}<|im_system|>{{ message.name or message['role'] }}<|im_middle|>{%- endif -%}"
        "{%- if message['role'] == 'assistant' and message.get('tool_calls') -%}{%- if message['content'] -%}{{ message['content'] }}{%- endif -%}<|tool_calls_section_begin|>"
        "{%- for tool_call in message['tool_calls'] -%}<|tool_call_begin|>{{ tool_call['id'] }}<|tool_call_argument_begin|>"
        "{% if tool_call['function']['arguments'] is string %}{{ tool_call['function']['arguments'] }}{% else %}{{ tool_call['function']['arguments'] | tojson }}{% endif %}<|tool_call_end|>"
        "{%- endfor -%}<|tool_calls_section_end|>{%- elif message['role'] == 'tool' -%}## Return of {{ message.tool_call_id }}\n{{ message['content'] }}"
        "{%- elif message['content'] is string -%}{{ message['content'] }}{%- endif -%}<|im_end|>{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|im_assistant|>assistant<|im_middle|>{%- endif -%}",
        said=kimi, calls="dict", ids="functions.{name}:{i}",
    ),
    "minimax m2: the prompt opens a thought, history loses them": Wild(
        "{%- set ns = namespace(last_user_index=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}{% set ns.last_user_index = loop.index0 -%}{%- endif %}{%- endfor %}"
        "{{- ']~!b[]~b]system\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- set conversation = messages[1:] %}{%- set off = 1 %}{%- else %}{{- 'You are M2.' }}"
        "{%- set conversation = messages %}{%- set off = 0 %}{%- endif %}{%- if tools %}{{- '\n\n# Tools\n' }}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}{%- endif %}{{- '[e~[\n' }}"
        "{%- for message in conversation %}{%- if message.role == 'assistant' %}{{- ']~b]ai\n' }}"
        "{%- set reasoning_content = (message.reasoning_content or '').strip('\n') %}{%- set content = message.content %}"
        "{%- if not reasoning_content and '</think>' in content %}{%- set reasoning_content = content.split('</think>')[0].strip('\n').split('<think>')[-1].strip('\n') %}"
        "{%- set content = content.split('</think>')[-1].strip('\n') %}{%- endif %}"
        "{%- if reasoning_content and loop.index0 + off > ns.last_user_index %}{{- '<think>\n' + reasoning_content + '\n</think>\n\n' }}{%- endif %}{{- content }}"
        "{%- if message.tool_calls %}{{- '\n<minimax:tool_call>\n' }}{%- for call in message.tool_calls %}{%- set call = call.function %}"
        """{{- '<invoke name="' + call.name + '">' }}{%- for k, v in call.arguments.items() %}{{- '\n<parameter name="' + k + '">' }}"""
        "{{- v | tojson if v is not string else v }}{{- '</parameter>' }}{%- endfor %}{{- '\n</invoke>\n' }}{%- endfor %}{{- '</minimax:tool_call>' }}{%- endif %}{{- '[e~[\n' }}"
        "{%- elif message.role == 'tool' %}{%- if loop.first or conversation[loop.index0 - 1].role != 'tool' %}{{- ']~b]tool' }}{%- endif %}"
        "{{- '\n<response>' + message.content + '</response>' }}{%- if loop.last or conversation[loop.index0 + 1].role != 'tool' %}{{- '[e~[\n' }}{%- endif %}"
        "{%- elif message.role == 'user' %}{{- ']~b]user\n' + message.content + '[e~[\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- ']~b]ai\n<think>\n' }}{%- endif %}",
        said=minimax, prompt=lambda prompt, message: prompt if message.reasoning and message.reasoning.strip("\n") else prompt.removesuffix("<think>\n"),
        key="reasoning_content", calls="dict", inline=True, outer=True, same=False,
    ),
    "deepseek v3.1: a switch that opens or closes the thought": Wild(
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
        "{% set ns = namespace(is_tool=false, system_prompt='', is_last_user=false) %}{%- for message in messages %}{%- if message['role'] == 'system' %}"
        "{% set ns.system_prompt = ns.system_prompt + message['content'] %}{%- endif %}{%- endfor %}{% if tools %}{% set ns.system_prompt = ns.system_prompt + '\n\n## Tools\n' + tools | tojson %}{% endif %}"
        "{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}"
        "{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{%- set ns.is_last_user = true -%}{{'<|User|>' + message['content']}}{%- endif %}"
        "{%- if message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] is not none %}"
        "{%- if ns.is_last_user %}{{'<|Assistant|></think>'}}{%- endif %}{%- set ns.is_last_user = false -%}{%- set ns.is_tool = false %}{{ message['content'] or '' }}{{ '<|calls|>' }}"
        "{%- for tool in message['tool_calls'] %}{{'<|call|>' + tool['function']['name'] + '<|sep|>' + tool['function']['arguments'] + '<|fin|>'}}{%- endfor %}{{'<|calls_end|></s>'}}{%- endif %}"
        "{%- if message['role'] == 'assistant' and (message['tool_calls'] is not defined or message['tool_calls'] is none) %}"
        "{%- if ns.is_last_user %}{{'<|Assistant|>'}}{%- if message['prefix'] is defined and message['prefix'] and thinking %}{{'<think>'}}{%- else %}{{'</think>'}}{%- endif %}{%- endif %}"
        "{%- set ns.is_last_user = false -%}{%- if ns.is_tool %}{{message['content'] + '</s>'}}{%- set ns.is_tool = false -%}{%- else %}{%- set content = message['content'] -%}"
        "{%- if '</think>' in content %}{%- set content = content.split('</think>', 1)[1] -%}{%- endif %}{{content + '</s>'}}{%- endif %}{%- endif %}"
        "{%- if message['role'] == 'tool' %}{%- set ns.is_last_user = false -%}{%- set ns.is_tool = true -%}{{'<|out|>' + message['content'] + '<|out_end|>'}}{%- endif %}{%- endfor -%}"
        "{%- if add_generation_prompt and ns.is_last_user and not ns.is_tool %}{{'<|Assistant|>'}}{%- if not thinking %}{{'</think>'}}{%- else %}{{'<think>'}}{%- endif %}{% endif %}",
        said=v31, calls="text",
    ),
    "command r7b: a response between marks": Wild(
        "{{ bos_token }}{% for message in messages %}<|START_OF_TURN_TOKEN|>{% if message.role|lower == 'user' %}<|USER_TOKEN|>{{ message.content }}"
        "{% elif message.role|lower == 'system' %}<|SYSTEM_TOKEN|>{{ message.content }}{% elif message.role|lower == 'assistant' or message.role|lower == 'chatbot' %}"
        "<|CHATBOT_TOKEN|><|START_RESPONSE|>{{ message.content }}<|END_RESPONSE|>{% endif %}<|END_OF_TURN_TOKEN|>{% endfor %}"
        "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
        said=plain("<|END_RESPONSE|><|END_OF_TURN_TOKEN|>", "<|START_RESPONSE|>"), eos="<|END_OF_TURN_TOKEN|>",
    ),
    "olmo 2: the prompt stands in the loop": Wild(
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}"
        "{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}"
        "{% if not loop.last %}{{ '<|assistant|>\n' + message['content'] + eos_token + '\n' }}{% else %}{{ '<|assistant|>\n' + message['content'] + eos_token }}{% endif %}{% endif %}"
        "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}",
        said=plain(EOS),
    ),
    "zephyr: line breaks between lines of the source": Wild(
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
        said=plain(EOS),
    ),
    "reka: a separator of plain words": Wild(
        "{% for m in messages %}{% if m.role == 'system' %}{{ m.content ~ '\n\n' }}{% elif m.role == 'user' %}{{ 'human: ' ~ m.content ~ ' <sep> ' }}"
        "{% else %}{{ 'assistant: ' ~ m.content ~ ' <sep> ' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
        said=plain(" <sep>", " "),
    ),
    "jamba: the beginning of a message is a token, too": Wild(
        "{% for m in messages %}{{ ('<s>' if loop.first else '') ~ '<|bom|><|' ~ m.role ~ '|> ' ~ m.content ~ '<|eom|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|bom|><|assistant|> ' }}{% endif %}",
        said=plain("<|eom|>"),
    ),
    "granite: roles between marks, a default system text with a date": Wild(
        "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}{%- else %}"
        """{%- set system_message = "Today's Date: " + strftime_now('%B %d, %Y') + ".\nYou are Granite." %}{%- set loop_messages = messages %}{%- endif %}"""
        "{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\n' }}{%- if tools %}{{- '<|start_of_role|>tools<|end_of_role|>' }}{{- tools | tojson(indent=4) }}{{- '<|end_of_text|>\n' }}{%- endif %}"
        "{%- for message in loop_messages %}{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] }}"
        "{%- if message.tool_calls %}{%- for c in message.tool_calls %}{{- '<|tool_call|>' }}{{- c.function | tojson }}{%- endfor %}{%- endif %}{{- '<|end_of_text|>\n' }}"
        "{%- if loop.last and add_generation_prompt %}{{- '<|start_of_role|>assistant' }}{%- if controls %}{{- ' ' + controls | tojson() }}{%- endif %}{{- '<|end_of_role|>' }}{%- endif %}{%- endfor %}",
        said=lambda m: m.content + "".join("<|tool_call|>" + dumped({"name": c.name, "arguments": c.arguments}) for c in m.tool_calls) + "<|end_of_text|>",
        calls="dict",
    ),
    "ernie: no line break after the stop token of an answer": Wild(
        "{%- if messages[0].role == 'system' %}{{- '<s>' + messages[0].content + '\n' }}{%- else %}{{- '<s>' }}{%- endif %}{%- for message in messages %}"
        "{%- if message.role == 'user' %}{{- 'User: ' + message.content + '\n' }}{%- elif message.role == 'assistant' %}{{- 'Assistant: ' + message.content + '<|end_of_sentence|>' }}{%- endif %}"
        "{%- endfor %}{%- if add_generation_prompt is defined and add_generation_prompt %}{{- 'Assistant: ' }}{%- endif %}",
        said=plain("<|end_of_sentence|>"),
    ),
    "hunyuan: begins each question by hand": Wild(
        "{%- for m in messages %}{%- if m.role == 'system' %}{{- '<s>' + m.content + '<|extra_4|>' }}{%- elif m.role == 'user' %}"
        "{{- ('' if loop.index0 == 1 and messages[0].role == 'system' else '<s>') + m.content + '<|extra_0|>' }}{%- else %}{{- m.content + '<|eos|>' }}{%- endif %}{%- endfor %}",
        said=plain("<|eos|>"),
    ),
    "seed: the same tokens around every role": Wild(
        "{%- for m in messages %}{{- '<seed:bos>' + m.role + '\n' }}{%- if m.role == 'assistant' and m.reasoning_content is string and m.reasoning_content | trim | length > 0 %}"
        "{{- '<seed:think>' + m.reasoning_content | trim + '</seed:think>' }}{%- endif %}{{- m.content + '<seed:eos>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<seed:bos>assistant\n' }}{%- endif %}",
        said=lambda m: ("<seed:think>" + m.reasoning.strip() + "</seed:think>" if (m.reasoning or "").strip() else "") + m.content + "<seed:eos>",
        key="reasoning_content",
    ),
    "apertus: system text always, one token ends an answer": Wild(
        "{{- bos_token }}{%- if messages and messages[0].role == 'system' %}{{- '<|system_start|>' + messages[0].content + '<|system_end|>' }}{%- set messages = messages[1:] %}"
        "{%- else %}{{- '<|system_start|>You are Apertus.<|system_end|>' }}{%- endif %}{{- '<|developer_start|>Deliberation: disabled<|developer_end|>' }}"
        "{%- set ns = namespace(open=false) %}{%- for message in messages %}{%- if message.role == 'user' %}{{- '<|user_start|>' + message.content + '<|user_end|>' }}"
        "{%- elif message.role == 'assistant' %}{%- if not ns.open %}{{- '<|assistant_start|>' }}{%- set ns.open = true %}{%- endif %}{{- message.content }}"
        "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|assistant_end|>' }}{%- set ns.open = false %}{%- endif %}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|assistant_start|>' }}{%- endif %}",
        said=plain("<|assistant_end|>"),
    ),
    "nemotron: /think in the system text, history split": Wild(
        "{{- bos_token }}{%- set ns = namespace(think=false) %}{%- for m in messages %}{%- if m.role in ['system', 'user'] and '/think' in m.content %}{%- set ns.think = true %}{%- endif %}{%- endfor %}"
        "{{- '<SPECIAL_10>System\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content.replace('/think', '') | trim }}{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}{{- '\n' }}"
        "{%- for m in turns %}{%- if m.role == 'user' %}{{- '<SPECIAL_11>User\n' + m.content.replace('/think', '') | trim + '\n' }}{%- else %}"
        "{{- '<SPECIAL_11>Assistant\n' + m.content.split('</think>')[-1] | trim + '\n<SPECIAL_12>\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<SPECIAL_11>Assistant\n' }}{%- endif %}",
        said=plain("\n<SPECIAL_12>", shown=str.strip), same=False,
    ),
    "vicuna: words around the turns": Wild(
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{{ messages[0]['content'].strip() ~ ' ' }}{% else %}{% set loop_messages = messages %}{{ 'A chat. ' }}{% endif %}"
        "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'].strip() }}{% else %}{{ ' ASSISTANT: ' + message['content'].strip() + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}",
        said=plain(EOS, " ", str.strip),
    ),
    "gemma: the model's role has another name, bos by hand": Wild(
        "{{ '<s>' }}{% if messages[0]['role'] == 'system' %}{% set first_user_prefix = messages[0]['content'] + '\n\n' %}{% set loop_messages = messages[1:] %}{% else %}{% set first_user_prefix = '' %}"
        "{% set loop_messages = messages %}{% endif %}{% for message in loop_messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}{{ message['content'] | trim }}{{ '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        said=plain("<|end|>", shown=str.strip),
    ),
    "continue_final_message and prefix: the stop token may be left out": Wild(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if not (loop.last and m.role == 'assistant' and (continue_final_message or m.prefix)) %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt and not continue_final_message %}<|im_start|>assistant\n{% endif %}",
        said=plain("<|im_end|>"),
    ),
    "consecutive questions are joined, roles in capitals": Wild(
        "{% set ns = namespace(role='') %}{% for m in messages %}{% if m.role == ns.role and m.role == 'user' %}{{ '\n\n' ~ m.content }}{% else %}"
        "{% if ns.role == 'user' %}{{ '<|end|>\n' }}{% endif %}{{ '<|' ~ m.role | upper ~ '|>\n' ~ m.content }}{% if m.role != 'user' %}{{ '<|end|>\n' }}{% endif %}{% endif %}{% set ns.role = m.role %}{% endfor %}"
        "{% if ns.role == 'user' and (add_generation_prompt or true) %}{{ '<|end|>\n' }}{% endif %}{% if add_generation_prompt %}{{ '<|ASSISTANT|>\n' }}{% endif %}",
        said=plain("<|end|>"),
    ),
    "questions are written twice": Wild(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if m.role == 'user' %}\nRead it again: {{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        said=plain("<|im_end|>"),
    ),
    "rounds are numbered": Wild(
        "{% set ns = namespace(round=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.round = ns.round + 1 %}[Round {{ ns.round }}]\n\nQ: {{ m.content }}\n\n"
        "{% elif m.role == 'assistant' %}A: {{ m.content }}{{ eos_token }}\n\n{% else %}{{ m.content }}\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}A: {% endif %}",
        said=plain(EOS),
    ),
    "answers in capitals": Wild(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | upper if m.role == 'assistant' else m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        said=plain("<|im_end|>", shown=str.upper),
    ),
    "texts and lists of parts, through a macro": Wild(
        "{% macro text(content) %}{% if content is string %}{{ content }}{% else %}{% for item in content %}{% if item.type == 'text' %}{{ item.text }}{% elif item.type == 'image' %}<image>{% endif %}{% endfor %}{% endif %}{% endmacro %}"
        "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' }}{{ text(m.content) }}{{ '<|im_end|>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}",
        said=plain("<|im_end|>"),
    ),
    "the whole conversation is one expression": Wild(
        "{{ bos_token ~ (messages | map(attribute='content') | join('<|end|>')) ~ '<|end|>' }}",
        said=plain("<|end|>"),
    ),
    "glm 4.6: a switch in the question, no stop token, an empty thought": Wild(
        "[gMASK]<sop>{%- macro visible_text(content) -%}{%- if content is string -%}{{- content }}{%- endif -%}{%- endmacro -%}{%- set ns = namespace(last_user_index=-1) %}"
        "{%- for m in messages %}{%- if m.role == 'user' %}{% set ns.last_user_index = loop.index0 -%}{%- endif %}{%- endfor %}{% for m in messages %}"
        "{%- if m.role == 'user' -%}<|user|>\n{{ visible_text(m.content) }}{{- '/nothink' if (enable_thinking is defined and not enable_thinking and not visible_text(m.content).endswith('/nothink')) else '' -}}"
        "{%- elif m.role == 'assistant' -%}<|assistant|>{%- set reasoning_content = '' %}{%- set content = visible_text(m.content) %}{%- if m.reasoning_content is string %}{%- set reasoning_content = m.reasoning_content %}"
        "{%- endif %}{%- if loop.index0 > ns.last_user_index and reasoning_content -%}{{ '\n<think>' + reasoning_content.strip() +  '</think>'}}{%- else -%}{{ '\n<think></think>' }}{%- endif -%}"
        "{%- if content.strip() -%}{{ '\n' + content.strip() }}{%- endif -%}{%- elif m.role == 'system' -%}<|system|>\n{{ visible_text(m.content) }}{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|assistant|>{{- '\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' -}}{%- endif -%}",
        said=lambda m: f"\n<think>{(m.reasoning or '').strip()}</think>" + ("\n" + m.content.strip() if m.content.strip() else "") + EOS,
        key="reasoning_content", same=False,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _frozen_clock():
    """The clock goes on: a day is the same for both."""


@st.composite
def answers(draw, wild, calls=()):
    """A thought stands in a field or, where the template looks there, in the text."""
    content, thought = draw(TEXTS), None
    if wild.key is not None and draw(st.booleans()):
        thought = draw(st.sampled_from(["R", "x", "two\nlines", " padded "]))
        if wild.inline and draw(st.booleans()):
            content, thought = f"<think>\n{thought}\n</think>\n\n{content}", None
    return Message("assistant", content, thought, tuple(calls), trained=draw(st.sampled_from([None, None, False])))


@st.composite
def conversations(draw, wild):
    turns = [Message("system", draw(TEXTS))] if draw(st.booleans()) else []
    most = 1 if wild.one else 2
    for _ in range(draw(st.integers(1, 3))):
        turns.append(Message("user", draw(TEXTS)))
        for _ in range(draw(st.integers(0, 2)) if wild.calls else 0):
            one = st.builds(ToolCall, st.sampled_from(["get_weather", "look"]), ARGUMENTS)
            calls = draw(st.lists(one, min_size=1, max_size=most))
            if "name" in wild.ids:
                calls = [replace(call, id=wild.ids.format(i=i, name=call.name)) for i, call in enumerate(calls, 1)]
            turns.append(draw(answers(wild, calls)))
            turns += [Message("tool", draw(TEXTS), call_id=call.id) for call in calls]
        turns.append(draw(answers(wild)))
    return turns + ([Message("user", draw(TEXTS))] if draw(st.booleans()) else [])


def apart(message, outer):
    """The message with the thought out of its text."""
    thought, end, content = message.content.partition("</think>")
    content = content.strip("\n") if outer else content.lstrip("\n")
    return replace(message, content=content, reasoning=thought.removeprefix("<think>").strip("\n")) if end else message


@cache
def renderer(name):
    wild = WILD[name]
    return own(wild.source, Tokenizer(wild.eos), TemplateOptions(), wild.switch)


TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}} for name in ("get_weather", "look")
)  # fmt: skip


def reference(wild, turns, tools, generation=False):
    dicts, waiting = [], []
    for turn in turns:
        one = {"role": turn.role, "content": turn.content}
        if turn.reasoning and wild.key:
            one[wild.key] = turn.reasoning
        if turn.tool_calls:
            waiting = [wild.ids.format(i=i, name=call.name) for i, call in enumerate(turn.tool_calls, 1)]
            names = [call.name for call in turn.tool_calls]
            one["tool_calls"] = [
                {"id": number, "type": "function", "function": {"name": call.name, "arguments": dumped(call.arguments) if wild.calls == "text" else call.arguments}}
                for number, call in zip(waiting, turn.tool_calls, strict=True)
            ]  # fmt: skip
        if turn.role == "tool":
            one |= {"tool_call_id": waiting.pop(0), "name": names.pop(0)}
        dicts.append(one)
    texts, _ = render_jinja_template(
        [dicts], chat_template=wild.source, tools=list(tools) or None, add_generation_prompt=generation, bos_token="<s>",
        eos_token=wild.eos,
    )  # fmt: skip
    return texts[0]


def check(name, turns):
    wild, template = WILD[name], renderer(name)
    tools = TOOLS if any(turn.tool_calls for turn in turns) else ()
    rows = template.render(turns, tools)
    trained = [i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.trained is not False]
    found = [
        ("".join(one.text for one in row[:i]), row[i].text) for row in rows for i, one in enumerate(row) if one.trained
    ]
    assert len(found) == len(trained)
    for (before, said), number in zip(found, trained, strict=True):
        assert said == wild.said(apart(turns[number], wild.outer)), number
        prompt = reference(wild, turns[:number], tools, generation=True)
        assert template.prompt_text(turns[:number], tools) == prompt
        assert before == wild.prompt(prompt, apart(turns[number], wild.outer)), number
    if wild.same and trained:
        assert ["".join(one.text for one in row) for row in rows] == [reference(wild, turns, tools)]


@pytest.mark.parametrize("name", WILD)
def test_an_answer_trains_what_inference_gives_after_its_prompt(name):
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(conversations(WILD[name]))
    def holds(turns):
        check(name, turns)

    holds()


def test_calls_that_a_template_names_by_their_ids_need_these():
    turns = [Message("user", "?"), Message("assistant", tool_calls=(ToolCall("look", {}),))]
    with pytest.raises(DataError, match="leaves out the call of look"):
        renderer("kimi: roles as tokens, calls with their ids").render(turns, TOOLS)


ROLES = {
    "user": Message("user", "?"), "assistant": Message("assistant", "!"), "system": Message("system", "."),
    "tool": Message("tool", "7", call_id="call00001"),
}  # fmt: skip


@pytest.mark.parametrize("role", ["system", "tool", "assistant"])
@pytest.mark.parametrize("words", ["Only {} are here", "Conversation roles must\n alternate; {}"])
def test_a_template_that_refuses_a_role_is_told_in_its_own_words(role, words):
    source = (
        (
            "{% for m in messages %}{% if m.role == ROLE %}{{ raise_exception(WORDS) }}{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
        .replace("ROLE", repr(role))
        .replace("WORDS", repr(words.format(role)))
    )
    template = own(source, Tokenizer(EOS), TemplateOptions())
    turns = [
        ROLES["system"],
        ROLES["user"],
        Message("assistant", "", tool_calls=(ToolCall("look", {}, "call00001"),)),
        ROLES["tool"],
    ]
    said = f"the chat template refuses this conversation: {' '.join(words.format(role).split())}"
    for give in (template.render, template.prompt_text):
        with pytest.raises(DataError) as refused:
            give(turns)
        assert str(refused.value) == said
