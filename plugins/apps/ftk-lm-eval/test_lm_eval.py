"""``ftk lm-eval`` against the harness's own model on the same weights, also in a task from a local folder.

Without lm_eval, which is in the extra ``backend``, what needs it is skipped.
"""

import json

import pytest
from ftk import DataError, Prompt
from ftk.opening import open_run
from ftk.testing import check_plugin

SMALL = ["--model_name_or_path", "ftk://random/llama", "--template", "chatml"]
ROWS = [
    {"question": f"Which word is {word}?", "choices": ["red", "two", "a dog"], "answer": number}
    for number, word in enumerate(("a colour", "a number", "an animal"))
]
TASK = """
task: my_words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}, train: {rows}}}}}
output_type: {kind}
test_split: test
fewshot_split: train
num_fewshot: 1
doc_to_text: "{{{{question}}}}\\nAnswer:"
"""
CHOICES = """
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}]
"""
WORDS = """
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 5}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture
def harness():
    pytest.importorskip("lm_eval", reason='lm_eval is not there: pip install "ftk-lm-eval[backend]"')
    from ftk_lm_eval import harness

    return harness


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Writes the task of a kind into a folder, and sees that data sets are kept in the test's own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def write(kind, rest):
        (tmp_path / "tasks").mkdir(exist_ok=True)
        (tmp_path / "tasks" / "my_words.yaml").write_text(TASK.format(rows=rows, kind=kind) + rest)
        return tmp_path / "tasks"

    return write


def requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]


def both(harness, batch_size=3):
    """Ours and the harness's own model on the same weights."""
    from lm_eval.models.huggingface import HFLM

    run = open_run("chat", None, SMALL)
    ours = harness.EngineLM(run, run.engine(), batch_size)
    theirs = HFLM(pretrained=run.model(trainable=False), tokenizer=run.tokenizer, backend="causal", batch_size=1)
    theirs._max_length = ours.max_length  # else it is what the tokenizer says
    return ours, theirs


def test_the_plugin_keeps_the_contract():
    pytest.importorskip("lm_eval", reason='lm_eval is not there: pip install "ftk-lm-eval[backend]"')
    assert check_plugin("lm-eval")


def test_log_likelihoods_are_the_harness_own(harness):
    ours, theirs = both(harness)
    asked = requests(
        "loglikelihood",
        ("Which word? ", "red"), ("Which word?", " a dog"), ("", "nothing before"), ("a b " * 600, " c"),
        ("Which word?", " two"),
    )  # fmt: skip
    wanted = theirs.loglikelihood(asked)
    found = ours.loglikelihood(asked)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]


def test_what_is_said_greedily_is_greedy(harness):
    ours, _ = both(harness)
    read = [3, 5, 8]
    (said,) = ours.engine.generate([Prompt((), text=tuple(read))], harness.sampling_of({"max_gen_toks": 3}))
    found = ours._loglikelihood_tokens([(("", ""), read, list(said.meta["tokens"]))])
    assert found[0][1] is True


def test_whole_texts_have_the_harness_own_log_likelihood(harness):
    ours, theirs = both(harness)
    asked = requests("loglikelihood_rolling", ("a short text",), ("a long text of words " * 200,))
    assert ours.loglikelihood_rolling(asked) == pytest.approx(theirs.loglikelihood_rolling(asked), rel=1e-5)


def test_answers_are_the_harness_own(harness):
    ours, theirs = both(harness)
    asked = requests(
        "generate_until", ("Which word?", {"until": ["\n"], "max_gen_toks": 8}),
        ("Say two", {"until": ["e"], "max_gen_toks": 8, "do_sample": False}), ("a b " * 600, {"max_gen_toks": 4}),
    )  # fmt: skip
    assert ours.generate_until(asked) == theirs.generate_until(asked)


def test_sampling_is_what_the_task_says(harness):
    assert harness.sampling_of({"until": "x"}).stop == ("x",)
    assert harness.sampling_of({}).do_sample is False
    sampled = harness.sampling_of({"temperature": 0.7, "top_p": 0.9, "max_gen_toks": 9})
    assert (sampled.do_sample, sampled.temperature, sampled.top_p, sampled.max_new_tokens) == (True, 0.7, 0.9, 9)
    with pytest.raises(DataError, match="gen_kwargs: tempratur: is not known"):
        harness.sampling_of({"tempratur": 1})


def test_conversations_go_through_the_template_of_the_run(harness):
    ours, _ = both(harness)
    asked = [{"role": "user", "content": "Hi"}]
    start = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert ours.apply_chat_template(asked) == start
    answer = {"role": "assistant", "content": "It is"}
    assert ours.apply_chat_template([*asked, answer], add_generation_prompt=False) == start + "It is"
    assert "im_start" in ours.chat_template(True)


@pytest.mark.parametrize("words", [(), ("--no-chat",)], ids=["chat", "plain"])
def test_a_task_from_a_folder_gives_the_numbers_of_the_harness(harness, ftk_cli, task, tmp_path, words):
    folder = task("multiple_choice", CHOICES)
    (tmp_path / "m.yaml").write_text("model_name_or_path: ftk://random/llama\ntemplate: chatml\n")
    out = tmp_path / "res" / "out.json"
    result = ftk_cli(
        "lm-eval", tmp_path / "m.yaml", "--tasks", "my_words", "--include-path", folder, "--output", out, *words
    )
    assert result.exit_code == 0, result.output
    assert "my_words" in result.stdout
    found = json.loads(out.read_text())
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    _, theirs = both(harness)
    theirs.tokenizer.chat_template = open_run("chat", None, SMALL).tokenizer.chat_template or CHATML
    wanted = simple_evaluate(
        model=theirs, tasks=["my_words"], task_manager=manager, bootstrap_iters=0,
        apply_chat_template=not words, fewshot_as_multiturn=not words, random_seed=42, numpy_random_seed=42,
        torch_random_seed=42, fewshot_random_seed=42,
    )  # fmt: skip
    assert found["results"]["my_words"]["acc,none"] == wanted["results"]["my_words"]["acc,none"]
    for mine, its in zip(found["samples"]["my_words"], wanted["samples"]["my_words"], strict=True):
        assert [one[0][0] for one in mine["resps"]] == pytest.approx([one[0][0] for one in its["resps"]], abs=1e-3)


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_answers_can_be_the_task(harness, ftk_cli, task, tmp_path, monkeypatch):
    folder = task("generate_until", WORDS)
    (tmp_path / "m.yaml").write_text("model_name_or_path: ftk://random/llama\ntemplate: chatml\n")
    result = ftk_cli("lm-eval", tmp_path / "m.yaml", "--tasks", "my_words", "--include-path", folder, "--limit", "2")
    assert result.exit_code == 0, result.output
    assert "exact_match" in result.stdout
    from ftk_lm_eval import command
    from lm_eval.tasks import TaskManager

    # the harness's own tasks are thousands, which take a minute to read
    monkeypatch.setattr(command, "TaskManager", lambda **how: TaskManager(**{**how, "include_defaults": False}))
    unknown = ftk_cli("lm-eval", tmp_path / "m.yaml", "--tasks", "nothing_of_the_kind")
    assert (unknown.exit_code, "the harness knows no such task" in unknown.stderr) == (2, True)
