"""Reference: the published templates of 54 families (golden/templates) as transformers renders them, and properties
that hold for any template: a row is what the model sees, and what is trained is one answer with its stop token.
"""

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import ftk
import pluggy
import pytest
from ftk import ConfigError, DataError, Message, ToolCall
from ftk.config import Setting
from ftk.plan import make_plan
from ftk.plugins import PluginRecord
from ftk.registry import Registry
from ftk.run import Run
from ftk.types import Tokens
from ftk_data import TemplateOptions, environment, renderer
from ftk_data.conversations import UNSET
from ftk_data.environment import render_marked
from ftk_template_auto import ftk_chat_templates
from ftk_template_auto.own import own

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
FAMILIES = json.loads((GOLDEN / "families.json").read_text()) if GOLDEN.exists() else []
REASONING = {"reasoning_content_single", "reasoning_content_history"}
MARKED = (
    "{% for message in messages %}<|{{ message.role }}|>{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content }}<|end|>\n{% endgeneration %}{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class NoTokenizer:
    """What the renderer asks of a tokenizer."""

    def __init__(self, chat_template=None, added=("<|end|>",), **tokens):
        self.chat_template = chat_template
        self.special_tokens_map = {key: value for key, value in tokens.items() if value}
        self.added = added

    def get_added_vocab(self):
        return {token: number for number, token in enumerate(self.added)}


@pytest.fixture(autouse=True)
def _frozen_clock(monkeypatch):
    monkeypatch.setattr(environment, "_strftime_now", lambda form: datetime(2025, 7, 10, 12).strftime(form))


def message(turn):
    calls = [call["function"] for call in turn.get("tool_calls") or ()]
    parsed = tuple(
        ToolCall(
            call["name"], json.loads(call["arguments"]) if isinstance(call["arguments"], str) else call["arguments"]
        )
        for call in calls
    )
    return Message(turn["role"], turn["content"], turn.get("reasoning_content"), parsed)


def cases(family):
    """The published renders of whole conversations, without media."""
    for case in map(json.loads, (GOLDEN / "renders.jsonl").open()):
        texts = all(isinstance(turn["content"], str) for turn in case["messages"])
        answered = case["messages"][-1]["role"] == "assistant"
        if case["family"] == family and "rendered" in case and texts and answered and not case["add_generation_prompt"]:
            yield case


def made(family, case):
    tokenizer = NoTokenizer(added=(), bos_token=family["bos_token"], eos_token=family["eos_token"])
    source = (GOLDEN / family["template_file"]).read_text()
    return own(source, tokenizer, TemplateOptions(), case["template_kwargs"].get("enable_thinking", UNSET))


@pytest.mark.parametrize("family", FAMILIES or [None], ids=lambda family: family and family["family"])
def test_rows_are_published_renders_and_train_answers_with_their_stop_token(family):
    if family is None:
        pytest.skip(f"{GOLDEN} is not there")
    compared = 0
    for case in cases(family["family"]):
        made_one = made(family, case)
        try:
            rows = made_one.render([message(turn) for turn in case["messages"]], case["tools"] or ())
        except DataError:
            if case["case"] in REFUSED.get(family["family"], ()) or leaves_tools_out(made_one, case):
                continue
            raise
        _check_masks(made_one, rows, case)
        if case["case"] in REASONING or "[str]" in case["case"]:
            continue  # reasoning is never left out; arguments are never encoded twice: not what each template does
        text = "".join(segment.text for segment in rows[-1])
        added = family["eos_token"] if not made_one.habits.stop and family["eos_token"] else ""
        assert text == case["rendered"] + added, case["case"]
        compared += 1
    assert compared >= 3


REFUSED = {
    # puts the system text into the last question, so that a prompt is no part of the conversation
    "pixtral": {"with_system_full", "empty_system", "multi_turn_3_system", "multi_turn_3_system_prompt"},
    # its prompt asks for no reasoning
    "hy3": REASONING,
}


def leaves_tools_out(made_one, case):
    """Whether the published template writes the same without the calls, or without the tools."""
    without = [{key: turn[key] for key in turn if key != "tool_calls"} for turn in case["messages"]]
    for messages, tools in ((without, case["tools"]), (case["messages"], None)):
        text, _ = render_marked(made_one.source, messages, **made_one.tokens, tools=tools, add_generation_prompt=False)
        if case["tools"] and text == case["rendered"]:
            return True
    return False


def _check_masks(made_one, rows, case):
    answers = [turn for turn in case["messages"] if turn["role"] == "assistant"]
    trained = [segment.text for row in rows for segment in row if segment.trained]
    assert len(trained) == len(answers)
    for text, turn in zip(trained, answers, strict=True):
        assert text.endswith(made_one.habits.stop or made_one.tokens.get("eos_token", ""))
        assert turn["content"].split("</think>")[-1].strip() in text
        assert (turn.get("reasoning_content") or "") in text
        for role in ("<|im_start|>", "<|start_header_id|>", "[INST]", "<start_of_turn>"):
            assert role not in text
    for row in rows:
        assert all(one.trained != two.trained for one, two in pairwise(row))


@pytest.mark.parametrize("family", FAMILIES or [None], ids=lambda family: family and family["family"])
def test_each_answer_follows_its_prompt(family):
    """What comes before the answer in a row is the prompt that inference gives, where the template allows it at all."""
    if family is None:
        pytest.skip(f"{GOLDEN} is not there")
    case = {case["case"]: case for case in cases(family["family"])}.get("multi_turn_3")
    if case is None:
        pytest.skip("the published template refuses several turns")
    made_one = made(family, case)
    turns = [message(turn) for turn in case["messages"]]
    prompts = [made_one.prompt_text(turns[:i]) for i, turn in enumerate(turns) if turn.role == "assistant"]
    seen = []
    for row in made_one.render(turns):
        seen += ["".join(one.text for one in row[:i]) for i, segment in enumerate(row) if segment.trained]
    unthinking = own(made_one.source, NoTokenizer(added=(), **made_one.tokens), TemplateOptions(), thinking=False)
    others = [unthinking.prompt_text(turns[:i]) for i, turn in enumerate(turns) if turn.role == "assistant"]
    for prompt, other, before in zip(prompts, others, seen, strict=True):
        if made_one.habits.extra:  # the prompt has more, for instance an opened thought
            assert prompt.startswith(before) or before == other
        else:
            assert before == prompt


def test_a_generation_block_marks_the_answer_and_whitespace_after_the_stop_token_is_not_trained():
    made_one = own(MARKED, NoTokenizer(eos_token="<|end|>"), TemplateOptions())
    (row,) = made_one.render([Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha")])
    assert [one[:2] for one in row] == [("<|user|>Hi\n<|assistant|>", False), ("Ho<|end|>", True), ("\n", False)]


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
    run.tokens = Tokens(NoTokenizer(chat_template, eos_token="<|end|>"))
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
