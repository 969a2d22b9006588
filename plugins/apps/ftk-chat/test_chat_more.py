"""Tools, thoughts, adapters and histories in ``ftk chat``. A scripted engine answers in the text of Qwen3's template,
whose marks and calls are those of its published chat template."""

import json
import os
import pty
import subprocess
import sys

import pytest
from ftk import DataError, Media, Message, Text, ToolCall
from ftk.opening import open_run
from ftk_chat.conversation import Conversation
from ftk_chat.history import load, save
from ftk_chat.showing import Thought
from ftk_data import renderer

QWEN = ["--model_name_or_path", "ftk://random/llama", "--template", "qwen3"]
LOOK = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}
CALLS = [{"name": "look", "arguments": {"at": "Bern"}}, {"name": "look", "arguments": {"at": "Zürich"}}]
ASKS = "<think>\nI have to look.\nTwice.\n</think>\n\nLet me see.\n" + "\n".join(
    f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in CALLS
)
SAYS = "<think>\n\n</think>\n\nBoth are sunny."
CALLED = Message(
    "assistant", "Let me see.", "I have to look.\nTwice.",
    (ToolCall("look", {"at": "Bern"}), ToolCall("look", {"at": "Zürich"})),
)  # fmt: skip


class Scripted:
    """An engine that gives its answers in turn, four characters at a time."""

    adapters = ("kind", "rude")

    def __init__(self, *answers):
        self.answers, self.prompts, self.samplings = list(answers), [], []

    def stream(self, prompt, sampling):
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        text = self.answers.pop(0) if self.answers else "yes"
        for start in range(0, len(text), 4):
            if text[start : start + 4] == "stop":
                raise KeyboardInterrupt
            yield text[start : start + 4]

    def close(self):
        pass


@pytest.fixture
def engine(monkeypatch):
    made = Scripted()
    monkeypatch.setattr("ftk.run.Run.engine", lambda self, model=None: made)
    return made


@pytest.fixture
def tools(tmp_path):
    path = tmp_path / "tools.json"
    path.write_text(json.dumps([LOOK]))
    return path


def seen(engine):
    """The last prompt's messages, ids of calls aside."""
    return engine.prompts[-1].messages


def test_calls_are_shown_and_their_results_typed(ftk_cli, engine, tools):
    engine.answers = [ASKS, SAYS]
    result = ftk_cli("chat", *QWEN, "--tools", tools, input="How is it?\nsunny\n/refuse too far\nthanks\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Let me see.\nBoth are sunny.\nyes\n"
    assert 'calls look({"at": "Bern"})\ncalls look({"at": "Zürich"})\n' in result.stderr
    assert engine.prompts[0].tools == (LOOK,)
    results = (Message("tool", "sunny"), Message("tool", "The user refused this call. too far"))
    assert engine.prompts[1].messages == (Message("user", "How is it?"), CALLED, *results)
    assert seen(engine)[4:] == (Message("assistant", "Both are sunny."), Message("user", "thanks"))


def test_what_is_kept_is_what_a_training_row_has(ftk_cli, engine, tools):
    """The prompt of the next turn begins with the row that trains the answer."""
    engine.answers = [ASKS]
    ftk_cli("chat", *QWEN, "--tools", tools, input="How is it?\na\nb\n")
    template = renderer(open_run("chat", None, QWEN))
    row = template.render([Message("user", "How is it?"), CALLED], (LOOK,))[-1]
    written = "".join(segment.text for segment in row)
    assert template.prompt_text(seen(engine), engine.prompts[-1].tools).startswith(written.rstrip())


def test_tools_can_be_given_and_taken_while_talking(ftk_cli, engine, tools, tmp_path):
    (tmp_path / "bad.json").write_text("[")
    lines = [
        f"/tools {tools}",
        "a",
        "/tools off",
        "b",
        "/tools",
        f"/tools {tmp_path / 'bad.json'}",
        "/tools nowhere.json",
    ]
    result = ftk_cli("chat", *QWEN, input="\n".join(lines))
    assert [prompt.tools for prompt in engine.prompts] == [(LOOK,), ()]
    for told in ("tools: look\n", "tools: none\n", "bad.json: cannot be read", "nowhere.json: cannot be read"):
        assert told in result.stderr


def test_tools_that_the_template_cannot_write_are_refused_at_once():
    class Mute:
        def prompt_text(self, messages, tools=()):
            raise DataError("the template knows no tools")

    talk = Conversation(None, Mute(), None)
    with pytest.raises(DataError, match="knows no tools"):
        talk.offer((LOOK,))
    assert talk.tools == ()


def test_a_prompt_that_ends_in_calls_prints_them_as_json(ftk_cli, engine, tools):
    engine.answers = [ASKS]
    result = ftk_cli("chat", *QWEN, "--tools", tools, "--prompt", "How is it?")
    said, *calls = result.stdout.splitlines()
    assert said == "Let me see."
    assert [json.loads(line) for line in calls] == CALLS


def test_a_thought_is_folded_and_can_be_read(ftk_cli, engine):
    engine.answers = ["<think>\nFirst this.\nThen that, of course.\n</think>\n\nSo it is."]
    result = ftk_cli("chat", *QWEN, input="Is it?\n/thoughts\n/clear\n/thoughts\n")
    assert result.stdout == "So it is.\n"
    lines = result.stderr.splitlines()
    assert lines[2:] == [
        "thought: First this. … (6 words, /thoughts shows them)", "First this.", "Then that, of course.", "forgotten",
        "nothing was thought before the last answer",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["short", "x" * 500, "日本語" * 100, "a\nb"])
def test_a_folded_thought_fits_the_terminal(monkeypatch, text):
    from rich.cells import cell_len

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("click.style", lambda line, **_: line)
    thought = Thought()
    thought.text = text
    for word in ("thinking", "thought"):
        assert cell_len(thought.line(word)) < 80
        assert thought.line(word).startswith(f"{word}: {text[:1]}")


def test_adapters_are_switched_while_talking(ftk_cli, engine):
    result = ftk_cli("chat", *QWEN, input="a\n/adapter rude\nb\n/adapter nice\n/adapter\n/adapter off\nc\n")
    assert [sampling.adapter for sampling in engine.samplings] == [None, "rude", None]
    assert "nice: there is no such adapter" in result.stderr
    assert "rude answers; there are kind, rude" in result.stderr
    assert ftk_cli("chat", *QWEN, "--adapter", "kind", "--prompt", "x").exit_code == 0
    assert engine.samplings[-1].adapter == "kind"
    assert "--adapter nice: lora_modules does not name it" in ftk_cli("chat", *QWEN, "--adapter", "nice").stderr


def test_a_real_engine_switches_adapters(ftk_cli, tmp_path):
    from ftk.run import Run
    from ftk.testing.runs import plan_in

    model = Run(plan_in(tmp_path, finetuning_type="lora", template="chatml", lora_target="all")).model(trainable=True)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.05)
    model.save_pretrained(tmp_path / "other")
    words = ("--model_name_or_path", "ftk://random/llama", "--template", "chatml", "--do_sample", "false")
    words += ("--max_new_tokens", "4", "--lora_modules", json.dumps({"other": str(tmp_path / "other")}))
    lines = "Hi\n/clear\n/adapter other\nHi\n/clear\n/adapter off\nHi\n"
    result = ftk_cli("chat", *words, input=lines)
    assert result.exit_code == 0, result.output
    by_name = [ftk_cli("chat", *words, *more, "--prompt", "Hi").stdout for more in ((), ("--adapter", "other"))]
    assert result.stdout == by_name[0] + by_name[1] + by_name[0]
    assert by_name[0] != by_name[1]


def test_a_conversation_is_saved_and_goes_on(ftk_cli, engine, tools, tmp_path):
    engine.answers = [ASKS, SAYS]
    kept = tmp_path / "talk.json"
    lines = f"How is it?\nsunny\nsunny, too\n/save {kept}\n"
    ftk_cli("chat", *QWEN, "--tools", tools, "--system", "Be kind.", input=lines)
    content = json.loads(kept.read_text())
    assert [one["role"] for one in content["messages"]] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    asked = content["messages"][2]
    assert (asked["reasoning_content"], asked["content"]) == ("I have to look.\nTwice.", "Let me see.")
    assert json.loads(asked["tool_calls"][1]["function"]["arguments"]) == {"at": "Zürich"}
    assert [one["tool_call_id"] for one in content["messages"][3:5]] == [call["id"] for call in asked["tool_calls"]]
    ftk_cli("chat", *QWEN, input=f"/load {kept}\nthanks\n")
    system, question, calls, one, two, answer, thanks = seen(engine)
    assert (system, question, answer) == (
        Message("system", "Be kind."),
        Message("user", "How is it?"),
        Message("assistant", "Both are sunny."),
    )
    assert (calls.reasoning, calls.content) == (CALLED.reasoning, CALLED.content)
    assert [(call.name, call.arguments) for call in calls.tool_calls] == [
        (call.name, call.arguments) for call in CALLED.tool_calls
    ]
    assert [one.text, two.text, thanks.text] == ["sunny", "sunny, too", "thanks"]
    assert engine.prompts[-1].tools == (LOOK,)
    assert not list(tmp_path.glob(".aside*"))


def test_a_history_is_read_when_it_is_there_and_kept_after_each_turn(ftk_cli, engine, tmp_path):
    kept = tmp_path / "h.json"
    ftk_cli("chat", *QWEN, "--history", kept, input="one\n")
    ftk_cli("chat", *QWEN, "--history", kept, "--prompt", "two")
    assert [message.text for message in seen(engine)] == ["one", "yes", "two"]
    assert [one["content"] for one in json.loads(kept.read_text())["messages"]] == ["one", "yes", "two", "yes"]
    engine.answers = [ASKS]
    ftk_cli("chat", *QWEN, "--history", kept, input="three\n")  # ends where a result is asked for
    ftk_cli("chat", *QWEN, "--history", kept, input="sunny\nsunny\n")
    assert [message.role for message in seen(engine)[-3:]] == ["assistant", "tool", "tool"]


def test_media_are_kept_by_their_paths(tmp_path):
    run = open_run("chat", None, QWEN)
    template = renderer(run)
    talk = Conversation(None, template, None)
    talk.messages = [
        Message("user", (Media("image", "/a b.png"), Text("What?"), Media("audio", "c.wav"))),
        Message("assistant", "A cat."),
    ]
    save(talk, tmp_path / "t.json")
    again = Conversation(None, template, None)
    load(again, tmp_path / "t.json")
    assert again.messages == talk.messages


@pytest.mark.parametrize(
    "text", ["[", "3", '{"a": 1}', '[{"role": "nobody", "content": "x"}]', '{"messages": [], "tools": 3}']
)
def test_a_file_that_is_no_conversation_changes_nothing(tmp_path, text):
    path = tmp_path / "t.json"
    path.write_text(text)
    talk = Conversation(None, renderer(open_run("chat", None, QWEN)), None, system="S")
    talk.messages = [Message("user", "x")]
    with pytest.raises(DataError, match=r"t\.json: "):
        load(talk, path)
    assert (talk.system, talk.messages, talk.tools) == ("S", [Message("user", "x")], ())


def test_an_answer_that_is_broken_off_within_a_thought_is_a_thought(ftk_cli, engine):
    engine.answers = ["<think>\nI go on and stop"]
    result = ftk_cli("chat", *QWEN, input="Is it?\nmore\n")
    assert "(stopped)" in result.stderr
    assert result.stdout == "yes\n"
    assert seen(engine)[1].role == "assistant"


def test_on_a_terminal_stdout_that_is_piped_holds_answers_alone():
    """The question mark of the loop stands on the terminal, not in the file."""
    ours, theirs = pty.openpty()
    code = "from ftk.cli import main; main()"
    words = ["chat", "ftk://tiny-chat", "--template", "chatml", "--do_sample", "false", "--max_new_tokens", "4"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    os.write(ours, b"Hello!\n\x04")
    out, _ = process.communicate(timeout=90)
    os.close(ours)
    assert len(out.decode().splitlines()) == 1
    assert not out.startswith(b">")
