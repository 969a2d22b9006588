"""Rewards: first-party ones against values worked out by hand, DAPO's punishment against eq. 13 of arXiv:2503.14476 as
a loop, functions of the user's own, and a reward model behind a real HTTP server on this machine.
"""

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
import torch
from ftk import ConfigError, FtkError
from ftk.errors import PluginError
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_rewards import simple
from ftk_rewards.functions import Answers, Function, RewardError
from ftk_rewards.judging import Judges
from ftk_rewards.models import RemoteModel
from ftk_rewards.remote import Server

pytest.importorskip("ftk_grpo", reason="a stage has to ask for rewards")


def made(folder, **settings):
    return Run(plan_in(folder, stage="grpo", template="chatml", **settings))


def answers(*replies, references=None, **more):
    num = len(replies)
    return Answers(
        replies=replies,
        prompts=[[{"role": "user", "content": "?"}]] * num,
        references=references or [""] * num,
        rows=more.get("rows", [{}] * num),
        finished=[True] * num,
        tokens=more.get("tokens", [[1, 2]] * num),
        ids=more.get("ids", [[1, 2, 3]] * num),
    )


def test_the_plugin_keeps_the_contract():
    assert check_plugin("rewards")


# First-party rewards


@pytest.mark.parametrize(
    ("reply", "reference", "wanted"),
    [
        ("It is 12.", "12", 1),
        ("First 3, then 1,200.50 dollars", "#### 1200.5", 1),
        ("It is 13.", "12", 0),
        (r"So \boxed{\frac{1}{2}} or 7", r"\boxed{\frac{1}{2}}", 1),
        (r"So \boxed{x+1}", "x + 2", 0),
        ("<think>5</think><answer> Paris </answer>", "paris", 1),
        ("Well: -4", "-4.0", 1),
        ("40% of it", "40%", 1),
        ("Paris", "London", 0),
        ("anything", "", None),
    ],
)
def test_an_answer_is_accurate_when_its_last_word_is_the_references(reply, reference, wanted):
    assert simple.accuracy([reply], [reference]) == [wanted]


def test_match_ignores_case_and_spaces_only():
    found = simple.match(["The  Cat\n", "the cat.", "x"], ["the cat", "the cat", " "])
    assert found == [1.0, 0.0, None]


def test_format_wants_the_whole_answer_to_match(tmp_path):
    run = made(tmp_path, reward_funcs="format")
    replies = ["<think>a\nb</think> <answer>c</answer>\n", "x <think>a</think><answer>c</answer>", "<answer>c</answer>"]
    assert simple.format(replies, run) == [1.0, 0.0, 0.0]
    other = made(tmp_path, reward_funcs="format", reward_pattern=r"[a-z]+")
    assert simple.format(["abc", "ab1"], other) == [1.0, 0.0]
    with pytest.raises(ConfigError, match=r"reward_pattern: \(: is no regular expression"):
        simple.format(["abc"], made(tmp_path, reward_funcs="format", reward_pattern="("))


def test_length_is_best_at_the_wanted_number_of_tokens(tmp_path):
    run = made(tmp_path, reward_funcs="length", reward_length=4)
    assert simple.length([[0] * n for n in (1, 4, 5, 8, 20)], run) == [0.25, 1.0, 0.75, 0.0, 0.0]


def test_overlong_answers_are_punished_as_in_dapo(tmp_path):
    run = made(tmp_path, reward_funcs="overlong", reward_overlong_buffer=4, max_new_tokens=10)

    def naive(length, most=10, cache=4):
        if length <= most - cache:
            return 0.0
        return ((most - cache) - length) / cache if length <= most else -1.0

    assert simple.overlong([[0] * n for n in range(1, 13)], run) == [naive(n) for n in range(1, 13)]


def test_repeating_three_words_is_punished_by_its_share():
    assert simple.repetition(["a b c d", "a b c a b c", "a b", ""]) == [0.0, -0.25, 0.0, 0.0]


# Functions


def test_a_function_gets_what_its_signature_names_and_columns_by_theirs(tmp_path):
    seen = {}

    def judge(completions, word, finished=None, unknown="default"):
        seen.update(completions=completions, word=word, finished=finished, unknown=unknown)
        return [0.5, None]

    found = Function("judge", judge, made(tmp_path, reward_funcs="length"))(answers("a", "b", rows=[{"word": 1}, {}]))
    assert seen == {"completions": ("a", "b"), "word": [1, None], "finished": [True, True], "unknown": "default"}
    assert found[0] == 0.5
    assert math.isnan(found[1])


def test_a_function_with_two_stars_gets_everything(tmp_path):
    def judge(replies, **everything):
        assert {"prompts", "references", "rows", "tokens", "finished", "run", "level"} <= set(everything)
        return torch.tensor([1.0])

    assert Function("judge", judge, made(tmp_path, reward_funcs="length"))(answers("a", rows=[{"level": 3}])) == [1.0]


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (lambda replies: [1.0], r"reward it: expected a list of 2 numbers, found 1 of them"),
        (lambda replies: 3, r"reward it: expected a list of 2 numbers, found 3"),
        (lambda replies: [1.0, "good"], r"reward it: expected finite numbers or None, found 'good'"),
        (lambda replies: [1.0, math.inf], r"reward it: expected finite numbers or None, found inf"),
        (lambda replies: [1 / 0], r"reward it failed: ZeroDivisionError: division by zero"),
        (lambda solution: [1.0, 1.0], r"reward it: takes solution, which is no column of the data. Columns: word"),
    ],
    ids=["too few", "no list", "no number", "infinite", "raises", "no column"],
)
def test_what_is_wrong_with_a_reward_is_one_line(tmp_path, judge, said):
    function = Function("it", judge, made(tmp_path, reward_funcs="length"))
    with pytest.raises(RewardError, match=said) as caught:
        function(answers("a", "b", rows=[{"word": 1}] * 2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("gone.py:judge", r"test\.yaml|reward_funcs: gone.py:judge: there is no file gone.py beside the YAML or here"),
        ("own.py:other", r"own.py has no function other. It has: judge"),
        ("bad.py:judge", r"bad.py cannot be imported: SyntaxError"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, named, said):
    (tmp_path / "own.py").write_text("def judge(replies):\n    return [0] * len(replies)\n")
    (tmp_path / "bad.py").write_text("def judge(:\n")
    with pytest.raises(ConfigError, match=said) as caught:
        Judges(made(tmp_path, reward_funcs=named))
    assert "\n" not in str(caught.value)


def test_a_misspelt_reward_is_an_error_of_the_plan(tmp_path):
    with pytest.raises(PluginError, match=r"reward_funcs: .*lenght.* Did you mean length"):
        made(tmp_path, reward_funcs="lenght")


def test_another_plugin_can_bring_a_reward(tmp_path, fake_plugin):
    fake_plugin(
        "reward-vowels",
        """
        import ftk
        from ftk_rewards import Reward

        def vowels(replies):
            return [sum(letter in "aeiou" for letter in reply) for reply in replies]

        @ftk.hookimpl
        def ftk_rewards():
            yield Reward("vowels", target="ftk_reward_vowels:vowels", summary="Counts vowels")
        """,
    )
    judges = Judges(made(tmp_path, reward_funcs="vowels"))
    assert judges.scores(answers("banana", "sky")).tolist() == [[3.0], [0.0]]
    assert "vowels" in Registry.discover().specs("reward")


def test_the_reward_is_the_weighted_sum_of_what_was_said(tmp_path):
    (tmp_path / "own.py").write_text("def some(replies):\n    return [None, 2.0]\n")
    judges = Judges(made(tmp_path, reward_funcs="own.py:some,match", reward_weights="3,0.5"))
    scores = judges.scores(answers("a", "b", references=["a", "c"]))
    assert judges.rewards(scores).tolist() == [0.5, 6.0]
    means = {name: float(total) / float(num) for name, (total, num) in judges.metrics(scores).items()}
    assert means == {"reward/some": 2.0, "reward/match": 0.5}


# A server


@contextmanager
def server(answer) -> Iterator[SimpleNamespace]:
    """``answer(request body, number of the request) -> (status, text)`` on a free port of this machine."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(body)
            status, text = answer(body, len(seen))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield SimpleNamespace(address=f"http://127.0.0.1:{listening.server_port}/score", seen=seen)
        listening.shutdown()
        thread.join()


def scores(body, number):
    return 200, json.dumps({"scores": [len(text) for text in body["messages"]]})


def test_a_server_gets_whole_texts_and_its_scores_are_the_reward(tmp_path):
    with server(scores) as there:
        run = made(tmp_path, reward_model=there.address, reward_model_type="api", reward_funcs="none")
        judges = Judges(run)
        judges.model = RemoteModel(run, there.address, "here")
        judges.batch_size = 2
        ids = [run.tokenizer(text)["input_ids"] for text in ("one", "two and three", "4")]
        found = judges.scores(answers("a", "b", "c", ids=ids))
    texts = [text for body in there.seen for text in body["messages"]]
    assert texts == [run.tokenizer.decode(one) for one in ids]
    assert found[:, 0].tolist() == [len(text) for text in texts]
    assert [len(body["messages"]) for body in there.seen] == [2, 1]


def test_a_server_that_stumbles_is_asked_again():
    with server(lambda body, number: scores(body, number) if number == 3 else (503, "busy")) as there:
        assert Server(there.address, "here", pause=0.01).scores(["abc"]) == [3.0]
        assert len(there.seen) == 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, ""), "answered 404"),
        ((302, ""), "answered 302"),
        ((503, ""), "answered 503"),
        ((200, "oops"), "its answer is no JSON"),
        ((200, "[1]"), r"expected \{\"scores\": \[...\]\} with 1 numbers"),
        ((200, '{"scores": [1, 2]}'), r"expected \{\"scores\": \[...\]\} with 1 numbers"),
        ((200, '{"scores": [NaN]}'), "its scores are not all numbers"),
    ],
    ids=lambda one: str(one[0]) if isinstance(one, tuple) else "",
)
def test_what_a_server_does_wrong_is_one_line(answer, said):
    with server(lambda body, number: answer) as there, pytest.raises(RewardError, match=said) as caught:
        Server(there.address, "here", pause=0.01).scores(["abc"])
    assert "\n" not in str(caught.value)


def test_nobody_there_is_one_line():
    with pytest.raises(FtkError, match=r"http://127.0.0.1:9/score: does not answer"):
        Server("http://127.0.0.1:9/score", "here", pause=0.01).scores(["abc"])


@pytest.mark.parametrize("address", ["saves/reward", "file:///etc/passwd", "ftp://host/x"])
def test_only_addresses_of_the_web_are_taken(address):
    with pytest.raises(ConfigError, match="wants an address such as"):
        Server(address, "here")
