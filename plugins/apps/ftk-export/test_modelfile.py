"""The Modelfile's template by a small reading of Go's text/template, against what the run's own renderer writes."""

import json
import re
from dataclasses import replace

from ftk import ChatTemplate, Message
from ftk.opening import open_run
from ftk.registry import Registry
from ftk_data import TemplateOptions
from ftk_data.rendering import declared
from ftk_export.modelfile import NotInGo, go_template, modelfile

TALKS = [
    (Message("user", "Hi"),),
    (Message("system", "Be short."), Message("user", "a {{b}}"), Message("assistant", "c"), Message("user", "d")),
]


class Tokenizer:
    bos_token, eos_token = "<s>", "</s>"
    special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>"}  # noqa: RUF012

    def get_added_vocab(self):
        return {"<s>": 1, "</s>": 2}


def read(source):
    """The tree of a template: texts, and ("if", [(condition, body)...]) and ("range", body)."""
    parts = re.split(r"(\{\{.*?\}\}(?!\}))", source)

    def body(at):
        found = []
        while at < len(parts):
            part = parts[at]
            word = part[2:-2].strip() if part.startswith("{{") else None
            if word is None:
                found.append(part)
            elif word == "end" or word.startswith("else"):
                return found, at, word
            elif word.startswith("if "):
                arms, condition, word = [], word[3:], ""
                while word != "end":
                    inside, at, word = body(at + 1)
                    arms.append((condition, inside))
                    condition = word.removeprefix("else if ") if word.startswith("else if") else "true"
                found.append(("if", arms))
            elif word.startswith("range "):
                inside, at, _ = body(at + 1)
                found.append(("range", inside))
            else:
                found.append(("do", word))
            at += 1
        return found, at, "end"

    return body(0)[0]


def write(tree, dot, names):
    def value(word):
        if word.startswith('"'):
            return json.loads(word)
        return names[word] if word.startswith("$") else dot[word[1:]]

    def holds(word):
        if word.startswith("not "):
            return not value(word[4:])
        if word.startswith("eq "):
            left, right = word[3:].split(" ")
            return value(left) == value(right)
        return word == "true" or bool(value(word))

    text = ""
    for part in tree:
        if isinstance(part, str):
            text += part
        elif part[0] == "if":
            text += next((write(inside, dot, names) for condition, inside in part[1] if holds(condition)), "")
        elif part[0] == "range":
            text += "".join(write(part[1], message, names) for message in dot["Messages"])
        elif set_ := re.fullmatch(r"(\$\w+) :?= (.*)", part[1]):
            names[set_[1]] = value(set_[2])
        else:
            text += value(part[1])
    return text


def by_go(source, messages):
    system = "\n\n".join(one.text for one in messages if one.role == "system")
    turns = [{"Role": one.role, "Content": one.text} for one in messages]
    return write(read(source), {"System": system, "Messages": turns}, {})


def test_every_declared_template_writes_there_what_it_writes_here():
    compared, left = 0, {}
    for name, spec in Registry.discover().specs("template").items():
        try:
            source = go_template(spec, Tokenizer())
        except NotInGo as why:
            left[name] = str(why)
            continue
        ours = declared(spec, Tokenizer(), TemplateOptions())
        for messages in TALKS:
            assert by_go(source, messages) == ours.prompt_text(messages).removeprefix("<s>"), (name, source)
        compared += 1
    assert compared >= 60, left
    assert all("is a Jinja template" in why or "before every turn" in why for why in left.values()), left


def test_a_mark_of_go_in_a_format_is_text():
    spec = ChatTemplate("odd", user="{{{content}}} ", generation=">")
    assert by_go(go_template(replace(spec, system_note=""), Tokenizer()), TALKS[0]) == "Hi >"


def test_it_names_the_weights_the_template_and_the_ends():
    words = ["--model_name_or_path", "ftk://random/llama", "--template"]
    lines = modelfile(open_run("export", None, [*words, "chatml"]), "model.gguf")
    assert '\nFROM ./model.gguf\nTEMPLATE """{{ range' in lines
    assert '\nPARAMETER stop "<|im_end|>"\n' in lines


def test_a_template_of_jinja_alone_is_left_out_aloud(caplog):
    text = modelfile(open_run("export", None, ["--model_name_or_path", "ftk://tiny-chat"]), ".")
    assert "# no TEMPLATE: " in text
    assert 'TEMPLATE """' not in text
    assert "no TEMPLATE" in caplog.text
