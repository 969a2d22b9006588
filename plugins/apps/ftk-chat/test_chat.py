"""``ftk chat`` as a user sees it: a scripted engine says what was asked of it, and one test runs the tiny model."""

import json
import os
import pty
import re
import subprocess
import sys
import time

import ftk_chat.command as command
import pytest
from ftk import DataError, Media, Message, Text
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in

MODEL = ["--model_name_or_path", "ftk://random/llama", "--template", "chatml"]


class Scripted:
    """An engine that answers with what it was asked, word by word, and keeps the prompts."""

    def __init__(self):
        self.prompts, self.samplings, self.closed = [], [], 0

    def stream(self, prompt, sampling):
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        last = prompt.messages[-1].text
        if last == "too much":
            raise DataError("the prompt has 600 tokens, but the model reads 512. Shorten it")
        for word in f"you said {last}".split():
            if word == "interrupt":
                raise KeyboardInterrupt
            yield word + " "

    def close(self):
        self.closed += 1


@pytest.fixture
def engine(monkeypatch):
    made = Scripted()
    monkeypatch.setattr("ftk.run.Run.engine", lambda self, model=None: made)
    return made


def said(engine):
    return [[(message.role, message.text) for message in prompt.messages] for prompt in engine.prompts]


def test_the_plugin_keeps_the_contract():
    assert check_plugin("chat")


def test_a_prompt_gives_the_answer_alone_on_stdout(ftk_cli, engine):
    result = ftk_cli("chat", *MODEL, "--prompt", "hi there", "--system", "Be kind.")
    assert result.exit_code == 0, result.output
    assert result.stdout == "you said hi there \n"
    assert said(engine) == [[("system", "Be kind."), ("user", "hi there")]]
    assert engine.closed == 1


def test_the_first_line_says_which_model_answers(ftk_cli, engine):
    result = ftk_cli("chat", *MODEL, "--prompt", "hi")
    assert re.fullmatch(r"ftk://random/llama \(\d+K parameters, float32, cpu, template chatml\)\n", result.stderr)


def test_a_conversation_is_remembered_until_it_is_cleared(ftk_cli, engine):
    result = ftk_cli("chat", *MODEL, input="one\n\n  two\n/clear\nthree\n/exit\nfour\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == "you said one \nyou said two \nyou said three \n"
    assert said(engine) == [
        [("user", "one")],
        [("user", "one"), ("assistant", "you said one "), ("user", "two")],
        [("user", "three")],
    ]


def test_the_end_of_the_input_ends_it(ftk_cli, engine):
    assert ftk_cli("chat", *MODEL, input="one").exit_code == 0
    assert said(engine) == [[("user", "one")]]


def test_the_system_text_can_be_changed_and_taken_out(ftk_cli, engine):
    result = ftk_cli("chat", *MODEL, "--system", "A", input="1\n/system B c\n/clear\n2\n/system\n/clear\n3\n")
    assert [prompt[0] for prompt in said(engine)] == [("system", "A"), ("system", "B c"), ("user", "3")]
    assert "system text: B c" in result.stderr
    assert "no system text" in result.stderr


def test_files_are_shown_where_the_words_say_or_before_them(ftk_cli, engine, tmp_path):
    for name in ("a.png", "b.png", "c.wav"):
        (tmp_path / name).touch()
    files = {name: str(tmp_path / name) for name in ("a.png", "b.png", "c.wav")}
    lines = [
        f"/image {files['a.png']}", f"/image {files['b.png']}", "one <image> two", "three", f"/audio {files['c.wav']}",
        "/image nowhere.png", "<image> <audio>", f"/image {files['a.png']}", "/clear", "four",
    ]  # fmt: skip
    result = ftk_cli("chat", *MODEL, input="\n".join(lines))
    assert result.exit_code == 0, result.output
    contents = [prompt.messages[-1].content for prompt in engine.prompts]
    image, second, sound = (
        Media(kind, files[name]) for kind, name in (("image", "a.png"), ("image", "b.png"), ("audio", "c.wav"))
    )
    assert contents == [
        (second, Text("one "), image, Text(" two")), "three", (Text("<image>"), Text(" "), sound), "four",
    ]  # fmt: skip
    assert "nowhere.png: there is no such file" in result.stderr
    once = ftk_cli("chat", *MODEL, "--image", "x.png", "--prompt", "What?")
    assert once.exit_code == 0, once.output
    assert engine.prompts[-1].messages[-1].content == (Media("image", "x.png"), Text("What?"))


def test_help_and_unknown_words_say_what_there_is(ftk_cli, engine):
    for word in ("/help", "/halp"):
        result = ftk_cli("chat", *MODEL, input=f"{word}\n")
        assert "/clear         forget what was said" in result.stderr
        assert result.stdout == ""
    assert "/halp is not known." in result.stderr
    assert engine.prompts == []


def test_an_answer_that_is_broken_off_is_kept_as_far_as_it_came(ftk_cli, engine):
    result = ftk_cli("chat", *MODEL, input="then interrupt me\nmore\n")
    assert result.exit_code == 0
    assert "(stopped)" in result.stderr
    assert said(engine)[1][:2] == [("user", "then interrupt me"), ("assistant", "you said then ")]


def test_a_conversation_that_became_too_long_goes_on_without_the_last_line(ftk_cli, engine):
    result = ftk_cli("chat", *MODEL, input="one\ntoo much\ntwo\n")
    assert result.exit_code == 0
    assert "the model reads 512. Shorten it. /clear starts anew" in result.stderr
    assert ("user", "too much") not in said(engine)[2]
    once = ftk_cli("chat", *MODEL, "--prompt", "too much")
    assert (once.exit_code, once.stdout) == (2, "")


def test_sampling_options_reach_the_engine(ftk_cli, engine):
    ftk_cli("chat", *MODEL, "--temperature", "0.3", "max_new_tokens=7", "--prompt", "hi")
    assert (engine.samplings[0].temperature, engine.samplings[0].max_new_tokens) == (0.3, 7)
    assert engine.samplings[0].seed is None


def test_a_seed_counts_on_with_every_answer(ftk_cli, engine):
    ftk_cli("chat", *MODEL, "--seed", "5", input="a\nb\n")
    assert [sampling.seed for sampling in engine.samplings] == [5, 6]


def write_run(folder, **record):
    folder.mkdir()
    options = {"model_name_or_path": "ftk://random/llama", "template": "chatml", "output_dir": str(folder)}
    content = {"status": "finished", "result": "adapter", "options": options, **record}
    (folder / "run.json").write_text(json.dumps(content))
    (folder / "run.yaml").write_text("".join(f"{key}: {value}\n" for key, value in options.items()))


@pytest.mark.parametrize("name", ["", "run.yaml"])
def test_a_run_gives_the_trained_model_and_base_the_one_before(ftk_cli, tmp_path, engine, name):
    out = tmp_path / "saves"
    write_run(out)
    Run(plan_in(tmp_path, finetuning_type="lora", template="chatml")).model(trainable=True).save_pretrained(out)
    trained = ftk_cli("chat", out / name, "--prompt", "hi")
    assert trained.exit_code == 0, trained.output
    assert trained.stderr.startswith(f"ftk://random/llama + {out} (")
    before = ftk_cli("chat", out / name, "--base", "--prompt", "hi")
    assert before.stderr.startswith("ftk://random/llama (")


def test_a_run_that_has_not_finished_is_told(ftk_cli, tmp_path, engine):
    out = tmp_path / "saves"
    write_run(out, status="running", config="a.yaml")
    told = f"{out} holds no finished run, so this is the model from before the training"
    assert told in ftk_cli("chat", out / "run.yaml", "--prompt", "hi").stderr.splitlines()
    assert told not in ftk_cli("chat", out / "run.yaml", "--base", "--prompt", "hi").stderr
    folder = ftk_cli("chat", out, "--prompt", "hi")
    assert (folder.exit_code, "its run is not finished" in folder.stderr) == (2, True)


def test_a_checkpoint_can_be_tried(ftk_cli, tmp_path, engine):
    out = tmp_path / "saves"
    write_run(out, status="running", config="a.yaml")
    model = Run(plan_in(tmp_path, finetuning_type="lora", template="chatml")).model(trainable=True)
    model.save_pretrained(out / "checkpoint-5")
    result = ftk_cli("chat", out, "--adapter_name_or_path", out / "checkpoint-5", "--prompt", "hi")
    assert result.stderr.startswith(f"ftk://random/llama + {out}/checkpoint-5 (")


def test_what_stands_first_is_the_source_unless_it_is_a_key(tmp_path):
    assert command.split_source(["a.yaml", "--seed", "1"]) == ("a.yaml", ["--seed", "1"])
    assert command.split_source(["--seed", "1"]) == (None, ["--seed", "1"])
    assert command.split_source(["seed=1"]) == (None, ["seed=1"])
    assert command.split_source([]) == (None, [])
    assert command.split_source(["ftk://random/llama?seed=1"]) == (
        None,
        ["--model_name_or_path", "ftk://random/llama?seed=1"],
    )
    (tmp_path / "config.json").write_text("{}")
    assert command.split_source([str(tmp_path)]) == (None, ["--model_name_or_path", str(tmp_path)])
    (tmp_path / "run.json").write_text("{}")
    assert command.split_source([str(tmp_path)]) == (str(tmp_path), [])


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "model_name_or_path: not set"),
        (["nowhere.yaml"], "nowhere.yaml: cannot be read"),
        ([*MODEL, "--temperatur", "1"], "temperatur: unknown option. Did you mean temperature"),
        ([*MODEL, "--max_new_tokens", "many"], "max_new_tokens: 'many': input should be a valid integer"),
    ],
)
def test_a_mistake_is_one_line(ftk_cli, words, error):
    result = ftk_cli("chat", *words, "--prompt", "hi")
    assert result.exit_code == 2
    assert error in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_the_tiny_model_answers_in_a_terminal():
    """The real thing in a pseudo-terminal: prompt, answer, Ctrl-D."""
    ours, theirs = pty.openpty()
    code = "from ftk.cli import main; main()"
    words = ["chat", "ftk://tiny-chat", "--template", "chatml", "--do_sample", "false", "--max_new_tokens", "8"]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = read_until(ours, b"> ")
    assert b"ftk://tiny-chat (" in seen
    os.write(ours, b"Hello!\n")
    answer = read_until(ours, b"\n> ").replace(b"\r", b"")
    lines = answer.decode().split("\n")
    assert lines[0] == "Hello!"
    assert len(lines[1]) > 3
    assert lines[2] == "> "
    os.write(ours, b"\x04")
    assert process.wait(30) == 0
    os.close(ours)


def read_until(terminal, mark, seconds=90):
    seen, end = b"", time.monotonic() + seconds
    while not seen.replace(b"\r", b"").endswith(mark):
        assert time.monotonic() < end, seen
        seen += os.read(terminal, 4096)
    return seen


def test_the_answer_is_the_engines_own(ftk_cli):
    from ftk import Prompt, Sampling
    from ftk.opening import open_run

    words = ["--model_name_or_path", "ftk://tiny-chat", "--template", "chatml"]
    prompt = Prompt((Message("user", "Hello!"),))
    expected = open_run("chat", None, words).engine().generate([prompt], Sampling(max_new_tokens=8, do_sample=False))
    result = ftk_cli("chat", *words, "--do_sample", "false", "--max_new_tokens", "8", "--prompt", "Hello!")
    assert result.stdout == expected[0].text + "\n"
