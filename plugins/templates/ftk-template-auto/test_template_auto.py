# ruff: noqa: E501 (a table is easier to read in long lines)
"""Reference: the published templates of 54 families (golden/templates) as transformers renders them, and properties
that hold for any template: a row is what the model sees, and what is trained is one answer with its stop token.
"""

import copy
import json
import re
from dataclasses import replace
from datetime import datetime
from functools import cache
from itertools import pairwise
from pathlib import Path

import ftk
import pluggy
import pytest
from ftk import ConfigError, DataError, Media, Message, Text, ToolCall
from ftk.config import Setting
from ftk.plan import make_plan
from ftk.plugins import PluginRecord
from ftk.registry import Registry
from ftk.run import Run
from ftk.types import Tokens
from ftk_data import TemplateOptions, environment, renderer
from ftk_data.conversations import UNSET
from ftk_data.environment import render_marked
from ftk_data.habits import num_shared
from ftk_data.messages import reasoning_of
from ftk_template_auto import ftk_chat_templates
from ftk_template_auto.own import own

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
FAMILIES = json.loads((GOLDEN / "families.json").read_text()) if GOLDEN.exists() else []
DIALECTS = list(Registry.discover().specs("tool_format").values())
MARKED = (
    "{% for message in messages %}<|{{ message.role }}|>{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content }}<|end|>\n{% endgeneration %}{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class NoTokenizer:
    """What the renderer asks of a tokenizer."""

    def __init__(self, added=("<|end|>",), bos_token=None, eos_token=None, chat_template=None):
        self.chat_template = chat_template
        tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self.special_tokens_map = {key: value for key, value in tokens.items() if value}
        self.added = added

    def get_added_vocab(self):
        return {token: number for number, token in enumerate(self.added)}


@pytest.fixture(autouse=True)
def _frozen_clock(monkeypatch):
    monkeypatch.setattr(environment, "_strftime_now", lambda form: datetime(2025, 7, 10, 12).strftime(form))


@cache
def renders():
    """(family, case, generation prompt) → the published render, None where the published template refuses."""
    rows = map(json.loads, (GOLDEN / "renders.jsonl").open())
    return {(row["family"], row["case"], row["add_generation_prompt"]): row for row in rows}


def parts(content):
    if isinstance(content, str):
        return content
    return tuple(Text(part["text"]) if part["type"] == "text" else Media(part["type"], "x") for part in content)


def message(turn):
    calls = []
    for call in turn.get("tool_calls") or ():
        arguments = call["function"]["arguments"]
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
        calls.append(ToolCall(call["function"]["name"], parsed, call.get("id")))
    thought, call_id = turn.get("reasoning_content"), turn.get("tool_call_id")
    return Message(turn["role"], parts(turn["content"]), thought, tuple(calls), call_id=call_id)


@cache
def template_of(name, thinking=UNSET):
    (family,) = (family for family in FAMILIES if family["family"] == name)
    source = (GOLDEN / family["template_file"]).read_text()
    # what a tokenizer would call its added tokens
    added = set(re.findall(r"<[|｜][^<>|｜'\s{}]+[|｜]>|<\w+>|<\w+[|]>|<[|]\w+>", source))
    return own(
        source, NoTokenizer(added, family["bos_token"], family["eos_token"]), TemplateOptions(), thinking, DIALECTS
    )


def expected(case):
    """The case whose render is to be had: arguments are a mapping, or text where the template wants that.

    Mistral's v3 writes a mapping with the quotes of HTML.
    """
    name, family, generation = case["case"], case["family"], case["add_generation_prompt"]
    if name.endswith(("[dict]", "[str]")):  # never text where the template encodes it, which gives it twice
        forms = [renders()[family, re.sub(r"\[.*", form, name), generation] for form in ("[dict]", "[str]")]
        return next((form for form in forms if "&#34;" not in form.get("rendered", "&#34;")), case)
    return case


def left_out(case, template):
    """Whether the published template writes the same without the tools, a call or the media, or cannot write parts."""
    given = {"add_generation_prompt": case["add_generation_prompt"], **template.tokens}
    for messages, tools in fewer(case):
        try:
            text, _ = render_marked(template.source, messages, tools=tools, **given)
        except environment.RENDER_ERRORS:
            continue
        if text == case["rendered"]:
            return True
    return False


def fewer(case):
    """(messages, tools) of a case with something less in it."""
    if case["tools"]:
        yield case["messages"], None
    for turn, one in enumerate(case["messages"]):
        for i in range(len(one.get("tool_calls", ()))):
            messages = copy.deepcopy(case["messages"])
            del messages[turn]["tool_calls"][i]
            if not messages[turn]["tool_calls"]:
                del messages[turn]["tool_calls"]
            yield messages, case["tools"]
        if any(part["type"] != "text" for part in one["content"] if isinstance(part, dict)):
            messages = copy.deepcopy(case["messages"])
            messages[turn]["content"] = [part for part in one["content"] if part["type"] == "text"]
            yield messages, case["tools"]


HOLDS_REASONING = {"reasoning_content_single", "reasoning_content_history"}
"""Cases whose reasoning most templates leave out of a conversation, and ftk never does."""
INLINE = "reasoning_inline_think_history"

REWRITES = {
    # Thoughts in the text of an answer go, also of the last one; the model has one when it answers.
    "deepseek-v3": {INLINE},
    "deepseek-r1": {INLINE},
    "deepseek-r1-distill-qwen": {INLINE},
    "exaone4": {INLINE},
    # A user turn after the last answer takes back how that was written, so its row ends before it.
    "qwen3": {"multi_turn_3_system_prompt", "tool_call_roundtrip_system_prompt"},
    "qwen3.5-think": {"multi_turn_3_system_prompt", "two_images_two_turns"},
    "gpt_oss": {"multi_turn_3_system_prompt"},
    # The system text moves into the last question, and is gone when an answer follows; rows have what is sent.
    "mistral-v3": {"multi_turn_3_system_prompt"},
    "pixtral": {"multi_turn_3_system_prompt", "with_system_full", "empty_system"},
}
"""Conversations whose published render is not what any answer was given to, so no row can be the same."""


@pytest.mark.parametrize("family", FAMILIES or [None], ids=lambda family: family and family["family"])
def test_published_conversations_and_prompts_are_rendered_byte_for_byte(family):
    """All cases: text, tools, calls in both forms, media, with and without generation prompt, whoever speaks last."""
    if family is None:
        pytest.skip(f"{GOLDEN} is not there")
    compared = 0
    for (name, kind, generation), case in renders().items():
        if name != family["family"]:
            continue
        kwargs = case["template_kwargs"]
        template = template_of(name, kwargs.get("enable_thinking", kwargs.get("thinking", UNSET)))
        turns = [message(turn) for turn in case["messages"]]
        want = expected(case).get("rendered")
        if want is None or left_out(expected(case), template):
            with pytest.raises(DataError, match="the chat template"):
                template.render(turns, case["tools"] or (), generation=generation)
            continue
        rows = template.render(turns, case["tools"] or (), generation=generation)
        if generation:
            if kind not in HOLDS_REASONING:
                assert template.prompt_text(turns, case["tools"] or ()) == want, kind
                compared += 1
            continue
        check_masks(template, rows, case)
        if kind in HOLDS_REASONING or kind.split("[")[0] in REWRITES.get(name, ()):
            continue
        text = "".join(segment.text for segment in rows[-1])
        missing = template.habits.missing
        if text != want and missing:  # where no stop token is written, the row ends with the one that was added
            text, _, rest = text.rpartition(missing)
            assert rest == "", kind
            assert want.startswith(text), kind
            assert (text == want) == (case["messages"][-1]["role"] == "assistant"), kind
        else:
            assert text == want, kind
        compared += 1
    assert compared >= COMPARED.get(family["family"], 20)


COMPARED = {"gemma": 14, "pixtral": 18, "alpaca": 18}


def check_masks(template, rows, case):
    answers = [turn for turn in case["messages"] if turn["role"] == "assistant"]
    trained = [segment.text for row in rows for segment in row if segment.trained]
    assert len(trained) == len(answers)
    for text, turn in zip(trained, answers, strict=True):
        end = template.habits.stop or template.habits.missing
        assert text.endswith((end, "<|call|>", "<|tool_response>") if "tool_calls" in turn else end)
        assert message(turn).text.split("</think>")[-1].strip() in text
        assert reasoning_of(message(turn)) in text
        for call in turn.get("tool_calls", ()):
            assert call["function"]["name"] in text
        for role in ("<|im_start|>", "<|start_header_id|>", "[INST]", "<start_of_turn>", "<|user|>", "ASSISTANT"):
            assert role not in text
    for row in rows:
        assert all(one.trained != two.trained for one, two in pairwise(row))


ANSWERS = {
    "llama2": "\n\n         {} </s>", "llama2-default": " {} </s>", "llama3": "{}<|eot_id|>", "llama3.1": "{}<|eot_id|>",
    "llama4": "{}<|eot|>", "qwen2.5": "{}<|im_end|>", "qwen3": "<think>\n\n</think>\n\n{}<|im_end|>", "qwen3-2507": "{}<|im_end|>",
    "qwen3.5-think": "\n</think>\n\n{}<|im_end|>", "qwen2_vl": "{}<|im_end|>", "qwen2_audio": "{}<|im_end|>",
    "mistral-v1": " {}</s>", "mistral-v3": " {}</s>", "mistral-7b-v0.3-hf": " {} </s>", "mistral-small-3.2": "{}</s>",
    "pixtral": "{}</s>", "devstral": "{}</s>", "gemma": "{}<end_of_turn>", "gemma3": "{}<end_of_turn>", "gemma4": "{}<turn|>",
    "phi3": "{}<|end|>", "phi3-small": "{}<|end|>", "phi4": "{}<|im_end|>", "yi": "{}<|im_end|>", "chatglm3": "\n {}</s>",
    "glm4": "{}<|endoftext|>", "glm4_moe": "\n<think></think>\n{}<|endoftext|>", "baichuan2": "{}</s>",
    "deepseek-llm": " {}<｜end▁of▁sentence｜>", "deepseek-v3": "{}<｜end▁of▁sentence｜>", "deepseek-r1": "{}<｜end▁of▁sentence｜>",
    "deepseek-r1-distill-qwen": "{}<｜end▁of▁sentence｜>", "deepseek-coder": "{}\n<|EOT|>", "minicpm5": "{}<|im_end|>",
    "chatml": "{}<|im_end|>", "vicuna-chujie": "{}</s>", "alpaca": "{}</s>", "openchat3.5": " {}<|end_of_turn|>",
    "falcon": " {}<|endoftext|>", "cohere": "{}<|END_OF_TURN_TOKEN|>", "exaone4": "{}[|endofturn|]",
    "gpt_oss": "<|channel|>final<|message|>{}<|return|>", "granite3.0": "{}<|end_of_text|>", "hy3": "{}<｜hy_eos:opensource｜>",
    "kimi-k2-thinking": "<think></think>{}<|im_end|>", "lfm2": "{}<|im_end|>", "lfm2-8b": "{}<|im_end|>", "mimo_vl": "{}<|im_end|>",
    "minimax-m1": "{}<end_of_sentence>", "smollm3": "{}<|im_end|>", "bailing": "{}<|endoftext|>", "internvl3": "{}<|im_end|>",
    "llava-1.5": "{} </s>", "nemotron3-nano": "{}<|im_end|>",
}  # fmt: skip
"""Family → what is trained of an answer, read off the published templates. Where those write no stop token (falcon, GLM,
Baichuan, Bailing) it is the tokenizer's own."""
STRIP = {
    "llama2", "llama2-default", "llama3", "llama3.1", "qwen3.5-think", "gemma", "gemma3", "gemma4", "phi3-small", "glm4_moe",
    "vicuna-chujie", "alpaca", "cohere", "minimax-m1",
}  # fmt: skip
SHOWN = {
    "qwen3": lambda text: text.lstrip("\n"),
    "smollm3": lambda text: text.lstrip("\n"),
    "nemotron3-nano": str.rstrip,
}
"""What the template makes of an answer's text: nothing, for most."""


@pytest.mark.parametrize("family", ANSWERS)
def test_the_mask_covers_the_words_and_the_stop_token_and_nothing_else(family):
    """In all published renders whose answers are plain words: with tools, results and media before them, too."""
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    shown = str.strip if family in STRIP else SHOWN.get(family, str)
    checked = 0
    for (name, kind, generation), case in renders().items():
        if name != family or generation or "rendered" not in case or "reasoning" in kind or case["template_kwargs"]:
            continue
        turns = [message(turn) for turn in case["messages"]]
        rows = outcome(template_of(name), turns, case["tools"] or ())
        if isinstance(rows, str):
            continue
        trained = [segment.text for row in rows for segment in row if segment.trained]
        answers = [turn for turn in turns if turn.role == "assistant"]
        for text, turn in zip(trained, answers, strict=True):
            if not turn.tool_calls:
                assert text == ANSWERS[family].format(shown(turn.text)), kind
                checked += 1
    assert checked >= 7


def test_every_published_template_has_its_answer_written_down():
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    assert {family["family"] for family in FAMILIES} == set(ANSWERS)
    assert {Path(family["template_file"]).name for family in FAMILIES} == {
        file.name for file in (GOLDEN / "templates").iterdir()
    }


@pytest.mark.parametrize("family", FAMILIES or [None], ids=lambda family: family and family["family"])
def test_one_render_gives_the_rows_that_a_render_for_each_turn_gives(family):
    if family is None:
        pytest.skip(f"{GOLDEN} is not there")
    template = template_of(family["family"])
    slow = replace(template)
    slow._template.__dict__["_traceable"] = False
    for (name, kind, generation), case in renders().items():
        if name == family["family"] and not generation and not case["template_kwargs"]:
            turns, tools = [message(turn) for turn in case["messages"]], case["tools"] or ()
            assert outcome(template, turns, tools) == outcome(slow, turns, tools), kind


def outcome(template, turns, tools=()):
    try:
        return template.render(turns, tools)
    except DataError as refused:
        return str(refused)


@pytest.mark.parametrize("family", FAMILIES or [None], ids=lambda family: family and family["family"])
def test_what_an_answer_trains_is_read_back(family):
    """Content, reasoning and, where a dialect of the family is installed, calls."""
    if family is None:
        pytest.skip(f"{GOLDEN} is not there")
    template = template_of(family["family"])
    read = 0
    for (name, kind, generation), case in renders().items():
        turns, tools = [message(turn) for turn in case["messages"]], case["tools"] or ()
        if (
            name != family["family"]
            or generation
            or case["template_kwargs"]
            or isinstance(outcome(template, turns, tools), str)
        ):
            continue
        said = [turn for turn in turns if turn.role == "assistant"]
        trained = [segment.text for row in template.render(turns, tools) for segment in row if segment.trained]
        for text, turn in zip(trained, said, strict=True):
            # a plain answer of a model whose prompts open a thought has none to be told from it
            if template.reader.opened and "</think>" not in text:
                continue
            found = template.read(text, tools)
            if turn.tool_calls and not template.reader.dialect:
                continue
            assert found.content.strip() == turn.text.split("</think>")[-1].strip(), kind
            assert found.reasoning == (reasoning_of(turn) or None) or "</think>" in turn.text, kind
            assert [(call.name, call.arguments) for call in found.tool_calls] == [
                (call.name, call.arguments) for call in turn.tool_calls
            ], kind
            read += 1
    assert read >= (0 if template.reader.opened else 6)


@pytest.mark.parametrize("family", FAMILIES or [None], ids=lambda family: family and family["family"])
def test_each_answer_follows_its_prompt(family):
    """What comes before the answer in a row is the prompt that inference gives, where the template allows it at all."""
    if family is None:
        pytest.skip(f"{GOLDEN} is not there")
    case = renders()[family["family"], "multi_turn_3", False]
    if "rendered" not in case:
        pytest.skip("the published template refuses several turns")
    template, unthinking = template_of(family["family"]), template_of(family["family"], False)
    turns = [message(turn) for turn in case["messages"]]
    seen = []
    for row in template.render(turns):
        seen += ["".join(one.text for one in row[:i]) for i, segment in enumerate(row) if segment.trained]
    asked = [turns[:i] for i, turn in enumerate(turns) if turn.role == "assistant"]
    for before, ask in zip(seen, asked, strict=True):
        if family["family"] in DIVIDED:
            prompt = template.prompt_text(ask)
            shared = num_shared(prompt, before)
            assert (prompt[shared:], before[shared:]) == DIVIDED[family["family"]]
        elif family["family"] in TWO_PROMPTS:
            assert before == unthinking.prompt_text(ask) != template.prompt_text(ask)
        else:
            assert before == template.prompt_text(ask)


TWO_PROMPTS = {"nemotron3-nano"}
"""Their prompt opens a thought, and they write an answer without reasoning as if the prompt had asked for none."""
DIVIDED = {
    "phi3-small": ("\n", ""),
    "deepseek-v3": ("<think>\n", ""),
    "deepseek-r1-distill-qwen": ("<think>\n</think>", ""),
    "gemma4": ("<|channel>thought\n<channel|>", ""),
    "vicuna-chujie": ("ASSISTANT:\n", "    ASSISTANT: "),
    "alpaca": ("### Response:\n\n", "    ### Response:\n"),
}
"""What their prompts have after what they share with a conversation, and the conversation instead of it."""


def test_a_generation_block_marks_the_answer_and_whitespace_after_the_stop_token_is_not_trained():
    made_one = own(MARKED, NoTokenizer(eos_token="<|end|>"), TemplateOptions())
    (row,) = made_one.render([Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha")])
    assert [one[:2] for one in row] == [
        ("<|user|>Hi\n<|assistant|>", False),
        ("Ho<|end|>", True),
        ("\n<|user|>Ha\n", False),
    ]


def test_a_generation_block_without_the_stop_token_trains_it_all_the_same():
    source = MARKED.replace("<|end|>\n{% endgeneration %}", "{% endgeneration %}<|end|>\n")
    made_one = own(source, NoTokenizer(eos_token="<|end|>"), TemplateOptions())
    assert made_one.render([Message("user", "Hi"), Message("assistant", "Ho")])[0][1].text == "Ho<|end|>"


def test_an_answer_that_looks_like_the_template_keeps_its_mask():
    made_one = own(MARKED, NoTokenizer(eos_token="<|end|>"), TemplateOptions())
    (row,) = made_one.render([Message("user", "<|assistant|>"), Message("assistant", "<|assistant|>x<|end|>")])
    assert row[1].text == "<|assistant|>x<|end|><|end|>"


def test_a_template_that_refuses_is_a_data_error_with_its_words():
    made_one = own("{{ raise_exception('users first') }}", NoTokenizer(eos_token="x"), TemplateOptions())
    with pytest.raises(DataError, match="users first"):
        made_one.prompt_text([Message("user", "Hi")])


def test_a_template_that_does_not_parse_is_a_config_error():
    with pytest.raises(ConfigError, match="does not parse: line 1"):
        own("{% if %}", NoTokenizer(), TemplateOptions())


def test_default_system_is_put_before_conversations_without_one():
    made_one = own(MARKED, NoTokenizer(eos_token="<|end|>"), TemplateOptions(default_system="Be"))
    assert made_one.prompt_text([Message("user", "Hi")]).startswith("<|system|>Be\n<|user|>")
    assert "Be" not in made_one.prompt_text([Message("system", "No"), Message("user", "Hi")])


def test_preserve_thinking_needs_a_template_that_can():
    with pytest.raises(ConfigError, match="cannot keep earlier reasoning"):
        own(MARKED, NoTokenizer(), TemplateOptions(preserve_thinking=True))


# Models without a template


def run_for(tmp_path, *, chat_template=None, model_type="made", templates=()):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    specs = (
        ftk.ModelLoader("none", target="none:none", default=True),
        ftk.Adapter("none", target="none:none", default=True),
        ftk.Command("talk", target="none:none", uses=("model_loader", "template")),
        *ftk_chat_templates(),
        *templates,
    )
    registry = Registry((PluginRecord("made", "made", "1", "made", specs=specs),), pluggy.PluginManager("ftk"))
    settings = {"model_name_or_path": Setting(str(tmp_path), "the test")}
    run = Run(make_plan(settings, registry, command=registry.find("command", "talk")))
    run.tokens = Tokens(NoTokenizer(chat_template=chat_template, eos_token="<|end|>"))
    return run


def test_the_models_own_template_is_used_and_saved(tmp_path):
    made_one = renderer(run_for(tmp_path, chat_template=MARKED))
    assert made_one.jinja() == MARKED
    assert made_one.stop == ("<|end|>",)
    assert (
        made_one.prompt_text([Message("user", "Hi")])
        == render_marked(MARKED, [{"role": "user", "content": "Hi"}], add_generation_prompt=True)[0]
    )


def test_a_model_without_one_gets_the_only_declared_template_that_fits(tmp_path):
    fitting = ftk.ChatTemplate("fit", user="U{content}", model_types=("made",))
    other = ftk.ChatTemplate("other", user="O{content}", model_types=("other",))
    assert renderer(run_for(tmp_path, templates=(fitting, other))).prompt_text([Message("user", "Hi")]) == "UHi"


def test_a_model_without_one_that_nothing_fits_is_an_error_that_lists_templates(tmp_path):
    other = ftk.ChatTemplate("other", model_types=("other",))
    with pytest.raises(ConfigError, match=r"none fits its model_type made and its tokens\. Name one: other"):
        renderer(run_for(tmp_path, templates=(other,)))


def test_a_template_whose_stop_token_the_tokenizer_lacks_does_not_fit(tmp_path):
    alien = ftk.ChatTemplate("alien", model_types=("made",), stop=("<|eot_id|>",))
    native = ftk.ChatTemplate("native", user="N{content}", model_types=("made",), stop=("<|end|>",))
    assert renderer(run_for(tmp_path, templates=(alien, native))).prompt_text([Message("user", "Hi")]) == "NHi"


def test_two_that_fit_are_not_guessed_between(tmp_path):
    both = (ftk.ChatTemplate("a", model_types=("made",)), ftk.ChatTemplate("b", model_types=("made",)))
    with pytest.raises(ConfigError, match=r"several fit its model_type made\. Name one: a, b"):
        renderer(run_for(tmp_path, templates=both))
