"""``ftk template``. References: transformers' ``apply_chat_template``, and the published renders of 54 families
(golden/renders.jsonl) for any Jinja source.
"""

import json
import re
from datetime import datetime
from pathlib import Path

import ftk_inspect.conversations as conversations
import pytest
from ftk import DataError
from ftk.opening import open_run
from ftk_data import environment
from ftk_inspect.habits import default_system_of, variables_read
from ftk_inspect.jinja import rendered_lines
from transformers import AutoTokenizer

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
TINY = "ftk://tiny-chat"
MESSAGES = [
    {"role": "system", "content": "Be <b>brief</b> &\n kind."},
    {"role": "user", "content": [{"type": "text", "text": "世界"}, {"type": "text", "text": "!"}]},
    {"role": "assistant", "content": "  \n👩‍👩‍👧\t"},
    {"role": "user", "content": "{{ x }} {% if %}"},
]


@pytest.fixture
def model(tmp_path):
    """``model(source)``: the folder of tiny-chat with another chat template, or with none."""
    original = Path(open_run("chat", None, ["--model_name_or_path", TINY]).model_path)

    def make(source=None):
        folder = tmp_path / "model"
        folder.mkdir()
        for path in original.iterdir():
            if path.name != "chat_template.jinja":
                (folder / path.name).symlink_to(path)
        if source is not None:
            (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
        return folder

    return make


def own_source():
    run = open_run("chat", None, ["--model_name_or_path", TINY])
    return (Path(run.model_path) / "chat_template.jinja").read_text()


def lines_of(*requests):
    return "\n".join(map(json.dumps, requests)) + "\n"


def outputs(result):
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


# show


def test_a_declared_template_is_shown_with_its_formats_and_where_it_comes_from(ftk_cli):
    result = ftk_cli("template", "show", "qwen3")
    assert result.exit_code == 0, result.output
    for line in (
        "comes from      ftk-template-qwen 0.1.0",
        'stop words      "<|im_end|>"',
        'thinking        "<think>\\n" … "\\n</think>\\n\\n"',
        'user           "<|im_start|>user\\n{content}<|im_end|>\\n"',
    ):
        assert line in result.stdout.splitlines()
    assert re.search("^tool dialect    (hermes|qwen) ", result.stdout, re.MULTILINE)
    assert "qwen3_moe" in result.stdout


def test_the_command_line_changes_what_is_shown(ftk_cli):
    assert "default system  none" in ftk_cli("template", "show", "chatml").stdout
    shown = ftk_cli("template", "show", "chatml", "--default_system", "Be brief.").stdout
    assert 'default system  "Be brief."' in shown


def test_a_models_own_template_is_shown_with_its_file_and_source(ftk_cli, model):
    source = "{%- if not x %}{%- set content = y %}{%- endif %}" + own_source()
    folder = model(source)
    result = ftk_cli("template", "show", folder)
    assert result.exit_code == 0, result.output
    assert f"comes from      {folder}/chat_template.jinja" in result.stdout
    assert 'stop words      "<|im_end|>"' in result.stdout
    assert "reads           add_generation_prompt, messages, x, y\n" in result.stdout
    assert result.stdout.endswith(f"\n\n{source}\n")


def test_the_dialect_of_a_models_own_template_is_the_one_that_reads_its_calls(ftk_cli, model):
    folder = model(ftk_cli("template", "show", "qwen3", "--jinja").stdout)
    shown = ftk_cli("template", "show", folder).stdout
    assert re.search("^tool dialect    .*hermes", shown, re.MULTILINE)
    assert 'thinking        "<think>" … "</think>"; enable_thinking is its switch' in shown
    assert "tool dialect    none: the chat template leaves out the" in ftk_cli("template", "show", TINY).stdout


def test_a_model_without_a_template_says_which_one_stands_in(ftk_cli, model, monkeypatch):
    folder = model()
    (folder / "config.json").unlink()
    config = json.loads(
        (Path(open_run("chat", None, ["--model_name_or_path", TINY]).model_path) / "config.json").read_text()
    )
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen3"}))
    result = ftk_cli("template", "show", folder)
    assert result.exit_code == 0, result.output
    assert "comes from      template qwen3 of ftk-template-qwen 0.1.0, which fits" in result.stdout


@pytest.mark.parametrize("name", ["chatml", "qwen3", TINY])
def test_jinja_prints_a_source_that_renders_the_same_from_a_file(ftk_cli, model, name):
    source = ftk_cli("template", "show", name, "--jinja").stdout
    request = lines_of({"messages": MESSAGES[2:], "add_generation_prompt": True})
    again = ftk_cli("template", "render", model(source), "-", input=request)
    assert outputs(again) == outputs(ftk_cli("template", "render", name, "-", input=request))


def test_a_run_directory_and_a_yaml_show_the_template_of_their_run(ftk_cli, tmp_path):
    (tmp_path / "c.yaml").write_text(f"model_name_or_path: {TINY}\ntemplate: qwen3\n")
    (tmp_path / "run").mkdir()
    record = {"options": {"model_name_or_path": TINY, "template": "qwen3"}, "status": "finished", "config": "c.yaml"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    for source in ("c.yaml", "run"):
        assert "ftk-template-qwen" in ftk_cli("template", "show", tmp_path / source).stdout


def test_a_template_that_depends_on_the_model_says_so(ftk_cli):
    shown = ftk_cli("template", "show", "auto").stdout
    assert "depends on the model; add --model" in shown
    result = ftk_cli("template", "show", "auto", "--jinja")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: template auto: depends on the model. Add --model with a folder, owner/name or address\n"
    )


def test_a_misspelt_name_is_one_line_with_the_right_one(ftk_cli):
    result = ftk_cli("template", "show", "qwn3")
    assert result.exit_code == 2
    assert "Did you mean qwen3?" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_default_system_text_is_found_by_rendering():
    class Renderer:
        def __init__(self, source):
            self.source = source

        def prompt_text(self, messages):
            turns = [{"role": message.role, "content": message.content} for message in messages]
            try:
                return environment.render_marked(self.source, turns, add_generation_prompt=True)[0]
            except environment.TemplateRefused as cause:
                raise DataError(str(cause)) from cause

    body = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    default = "{% if messages[0].role != 'system' %}<system>Be good.</>{% endif %}"
    assert default_system_of(Renderer(body)) is None
    assert default_system_of(Renderer(default + body)) == "Be good."
    assert default_system_of(Renderer("{{ raise_exception('no') }}")) is None


def test_variables_are_those_that_a_template_does_not_set_itself():
    source = (
        "{% if a %}{% set b = 1 %}{% endif %}{{ b }}{{ raise_exception(c) }}{% generation %}{{ d }}{% endgeneration %}"
    )
    assert variables_read(source) == ["a", "c", "d"]


# render


def test_render_prints_what_transformers_renders(ftk_cli, model):
    folder = model("{{ eos_token }}|{{ documents is defined }}|{{ mood }}|{{ tools }}|{{ messages | tojson }}")
    request = {
        "messages": MESSAGES, "tools": conversations.TOOLS, "add_generation_prompt": True,
        "template_kwargs": {"mood": "good"},
    }  # fmt: skip
    kwargs = {"tools": list(conversations.TOOLS), "add_generation_prompt": True, "mood": "good", "tokenize": False}
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(MESSAGES, **kwargs)
    assert outputs(ftk_cli("template", "render", folder, "-", input=lines_of(request))) == [expected]


@pytest.mark.parametrize("gone", [["model.safetensors"], ["model.safetensors", "config.json"]])
def test_weights_are_not_asked_for_and_a_tokenizer_alone_will_do(ftk_cli, model, gone):
    folder = model("{{ messages[0].content }}{{ eos_token }}")
    for name in gone:
        (folder / name).unlink()
    request = lines_of({"messages": [{"role": "user", "content": "Hi"}]})
    assert outputs(ftk_cli("template", "render", folder, "-", input=request)) == ["Hi<|im_end|>"]
    assert ftk_cli("chat", folder, input="").exit_code == 2


def test_published_renders_of_all_families_come_out_of_their_sources(monkeypatch):
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    monkeypatch.setattr(environment, "_strftime_now", lambda form: datetime(2025, 7, 10, 12).strftime(form))
    compared = 0
    for line in (GOLDEN / "renders.jsonl").open(encoding="utf-8"):
        case = json.loads(line)
        tokens = {key: case[key] for key in ("bos_token", "eos_token") if case[key] is not None}
        (made,) = rendered_lines((GOLDEN / case["template_file"]).read_text(encoding="utf-8"), [line], tokens)
        assert made == case["rendered"] if "rendered" in case else "error" in made, (case["family"], case["case"])
        compared += 1
    assert compared == 2410


def test_a_named_template_renders_published_conversations(ftk_cli):
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    cases = [json.loads(line) for line in (GOLDEN / "renders.jsonl").open(encoding="utf-8")]
    cases = [case for case in cases if case["family"] == "qwen3"]
    made = outputs(ftk_cli("template", "render", "qwen3", "-", "--eos", "<|im_end|>", input=lines_of(*cases)))
    assert made == [case["rendered"] for case in cases]
    assert len(made) == 46


def test_a_named_template_gets_its_tokens_from_options_or_from_a_model(ftk_cli):
    request = lines_of({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]})
    render = ("template", "render", "llama2", "-")
    (bare,) = outputs(ftk_cli(*render, input=request))
    (given,) = outputs(ftk_cli(*render, "--bos", "<s>", "--eos", "</s>", input=request))
    (models,) = outputs(ftk_cli(*render, "--model", TINY, input=request))
    assert given.replace("<s>", "").replace("</s>", "") == bare
    assert (given.count("<s>"), given.count("</s>")) == (1, 1)
    assert "<|im_end|>" in models


def test_a_line_that_cannot_be_rendered_is_an_error_in_its_place(ftk_cli, tmp_path):
    good = {"messages": [{"role": "user", "content": "Hi"}]}
    file = tmp_path / "lines.jsonl"
    file.write_text(
        "\n".join([json.dumps({"messages": [{"role": "bard", "content": ""}]}), "", "{", "[]", json.dumps(good)])
    )
    made = outputs(ftk_cli("template", "render", "chatml", file))
    assert made[0] == {"error": "a turn of bard has no place in this template"}
    assert [isinstance(one, dict) for one in made] == [True, True, True, False]
    assert 'expected an object with a list of "messages", found []' in made[2]["error"]


def test_half_a_surrogate_pair_comes_out_escaped(ftk_cli):
    request = '{"messages": [{"role": "user", "content": "\\ud83d"}]}'
    (made,) = outputs(ftk_cli("template", "render", "chatml", "-", input=request))
    assert "\ud83d" in made


def test_a_file_that_is_no_text_is_one_line(ftk_cli, tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    result = ftk_cli("template", "render", "chatml", tmp_path / "x")
    assert result.exit_code == 2
    assert "is not UTF-8 text: invalid start byte at byte 0" in result.stderr


def test_thinking_can_be_set_for_all_lines_and_a_line_goes_first(ftk_cli):
    asked = {"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": True}
    lines = lines_of(asked, {**asked, "template_kwargs": {"enable_thinking": True}})
    off, on = outputs(ftk_cli("template", "render", "qwen3", "-", "--enable_thinking", "false", input=lines))
    assert off.endswith("<think>\n\n</think>\n\n")
    assert on.endswith("<|im_start|>assistant\n")


# check


def test_a_template_that_is_the_models_own_passes(ftk_cli, model):
    folder = model(ftk_cli("template", "show", "qwen3", "--jinja").stdout)
    result = ftk_cli("template", "check", folder, "qwen3")
    assert result.exit_code == 0, result.output
    number = len(conversations.CASES)
    assert f"{number} of {number} conversations are written the same by qwen3 and {folder}" in result.stdout
    assert 'ok       the stop token "<|im_end|>" (id 2) is trained, and generation stops at it' in result.stdout
    assert "note     the prompt of turn 2 rewrites turn 1, so each answer" in result.stdout


def test_a_difference_is_shown_where_it_begins(ftk_cli, model):
    folder = model(own_source().replace("'<|im_end|>' -}}{%- endgen", "'<|im_end|>\\n' -}}{%- endgen"))
    result = ftk_cli("template", "check", folder, "chatml")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert "ok       one turn, prompt" in lines
    at = lines.index("DIFFERS  several turns")
    start = "<|im_start|>user\nOne and one?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n"
    after = json.dumps(start[-40:])
    assert lines[at + 1] == f"         from character {len(start) + 1}, line 5, after {after}"
    assert lines[at + 2].endswith('  "\\n<|im_start|>user\\nAnd one more?<|im_end|>\\n<|im_start|>assist" …')
    assert lines[at + 3].startswith("         chatml")
    assert '"<|im_start|>user\\nAnd one more?' in lines[at + 3]


def test_what_one_template_refuses_is_a_difference_and_what_both_refuse_is_none(ftk_cli, model):
    refusing = "{%- if tools %}{{ raise_exception('no tools here') }}{%- endif %}"
    folder = model(refusing + own_source())
    result = ftk_cli("template", "check", folder, "chatml")
    assert result.exit_code == 1
    assert "refuses: no tools here" in result.stdout
    folder.joinpath("chat_template.jinja").write_text("{{ raise_exception('never') }}")
    assert "(both refuse)" not in ftk_cli("template", "check", folder, "chatml").stdout
    llama = ftk_cli("template", "show", "llama3", "--jinja").stdout
    folder.joinpath("chat_template.jinja").write_text(llama)
    assert "ok       parallel calls (both refuse)" in ftk_cli("template", "check", folder, "llama3").stdout


def test_a_stop_word_that_the_tokenizer_lacks_is_found(ftk_cli):
    result = ftk_cli("template", "check", TINY, "llama3")
    assert result.exit_code == 1
    assert 'WRONG    the stop word "<|eot_id|>" is no token of the tokenizer' in result.stdout


def test_a_models_own_template_alone_is_held_to_its_stop_token_and_prefix(ftk_cli, tmp_path):
    for what in (TINY, tmp_path / "c.yaml"):
        (tmp_path / "c.yaml").write_text(f"model_name_or_path: {TINY}\ntemplate: chatml\n")
        result = ftk_cli("template", "check", what)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == [
            f"What is learnt with {what}",
            'ok       the stop token "<|im_end|>" (id 2) is trained, and generation stops at it',
            "ok       the prompt of turn 2 begins with the row of turn 1, so they share a row",
            "ok       the prompt of turn 2 begins with the row of turn 1, with reasoning, so they share a row",
        ]


def test_other_software_that_stops_elsewhere_is_a_note(ftk_cli, model):
    folder = model(own_source())
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").write_text('{"eos_token_id": [0]}')
    result = ftk_cli("template", "check", folder)
    assert result.exit_code == 0
    assert "note     generation_config.json of the model stops at <|endoftext|>" in result.stdout
