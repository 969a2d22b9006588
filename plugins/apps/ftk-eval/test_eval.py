"""``ftk eval`` on sets written as MMLU, CMMLU and C-Eval are published. References: log-probabilities of transformers'
own forward pass on tokens joined by hand, and a model that was trained to know the answers."""

import json
import zipfile

import pytest
import torch
from ftk import DataError
from ftk.opening import open_run
from ftk.testing import check_plugin, run_in
from ftk_eval.asking import conversation
from ftk_eval.judging import Judge
from ftk_eval.question_sets import LETTERS, Question, QuestionSet

SMALL = ["--model_name_or_path", "ftk://random/llama", "--template", "chatml"]
QUESTIONS = [
    ('Which is a colour, said "Al"?', "red", "two", "dog", "ran", "A"),
    ("Which is a number?", "red", "two", "dog", "ran", "B"),
    ("Which is an animal?", "red", "two", "dog, or so", "ran", "C"),
    ("Which is a verb?", "red", "two", "dog", "ran", "D"),
    ("Which is no word?", "red", "xq", "dog", "ran", "B"),
]  # fmt: skip
TITLES = ("id", "question", *LETTERS, "answer", "explanation")


def csv_of(rows):
    return "".join(",".join('"{}"'.format(str(cell).replace('"', '""')) for cell in row) + "\n" for row in rows)


@pytest.fixture
def sets(tmp_path):
    """MMLU zipped without titles, C-Eval in folders with, CMMLU with titles of its own and no mapping."""
    folder = tmp_path / "evaluation"
    (folder / "mmlu").mkdir(parents=True)
    with zipfile.ZipFile(folder / "mmlu" / "mmlu.zip", "w") as archive:
        for split, rows in (("dev", QUESTIONS[:2]), ("val", QUESTIONS[3:4]), ("test", QUESTIONS)):
            for subject in ("plain_words", "odd_words"):
                archive.writestr(f"data/{split}/{subject}_{split}.csv", csv_of(rows))
            archive.writestr(f"__MACOSX/{split}/x_{split}.csv", "broken")
    mapping = {
        "plain_words": {"name": "plain words", "category": "STEM"},
        "odd_words": {"name": "odd words", "category": "Other"},
    }
    (folder / "mmlu" / "mapping.json").write_text(json.dumps(mapping))
    for split in ("dev", "val"):
        (folder / "ceval" / split).mkdir(parents=True)
        rows = [(number, *question, "because") for number, question in enumerate(QUESTIONS)]
        (folder / "ceval" / split / f"words_{split}.csv").write_text(csv_of([TITLES, *rows]), encoding="utf-8-sig")
    for split in ("dev", "test"):
        (folder / "cmmlu" / split).mkdir(parents=True)
        rows = [(number, *question) for number, question in enumerate(QUESTIONS)]
        (folder / "cmmlu" / split / "words.csv").write_text(csv_of([("", "Question", *LETTERS, "Answer"), *rows]))
    return folder


def opened(sets, *words):
    return open_run("eval", None, [*SMALL, "--task_dir", str(sets), *words])


def test_the_plugin_keeps_the_contract():
    assert check_plugin("eval")


@pytest.mark.parametrize(
    ("task", "subjects"),
    [("mmlu_test", ["odd_words", "plain_words"]), ("ceval_validation", ["words"]), ("cmmlu_test", ["words"])],
)
def test_the_published_layouts_are_read(sets, task, subjects):
    found = QuestionSet(task, str(sets))
    assert found.subjects == subjects
    subject = found.read(subjects[0], 1)
    assert [(one.text, *one.choices, one.answer) for one in subject.questions] == QUESTIONS
    assert [(one.text, *one.choices, one.answer) for one in subject.solved] == QUESTIONS[:1]
    assert (subject.name, subject.category) == (subjects[0].replace("_", " "), "Other")


def test_questions_are_asked_in_both_languages():
    question, solved = Question("Q?", ("w", "x", "y", "z"), "C"), Question("P?", ("1", "2", "3", "4"), "B")
    about = "The following are multiple choice questions (with answers) about odd words.\n\n"
    english = conversation(question, [solved], "odd words", "en", letters=True)
    assert [(one.role, one.text) for one in english] == [
        ("user", f"{about}P?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"),
        ("assistant", "B"),
        ("user", "Q?\nA. w\nB. x\nC. y\nD. z\nAnswer:"),
    ]  # fmt: skip
    chinese = conversation(question, [], "逻辑学", "zh", letters=True)
    start = "以下是中国关于逻辑学考试的单项选择题，请选出其中的正确答案。\n\n"
    assert chinese[0].text == start + "Q?\nA. w\nB. x\nC. y\nD. z\n答案："
    whole = conversation(question, [solved], "odd words", "en", letters=False)
    assert [one.text for one in whole[1:]] == ["2", "Q?\nAnswer:"]


def test_the_letter_is_the_most_probable_next_token(sets):
    run = opened(sets, "--task", "mmlu_test")
    subject = QuestionSet("mmlu_test", str(sets)).read("odd_words", 1)
    told = []
    chosen = Judge(run, run.engine(), "en", letters=True).choices(subject, 2, told.append)
    assert told == [2, 2, 1]
    model, tokenizer = run.model(trainable=False), run.tokenizer
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in LETTERS]
    first, answer, _ = (
        one.text for one in conversation(subject.questions[0], subject.solved, "odd words", "en", letters=True)
    )
    by_hand = []
    for question in subject.questions:
        said = conversation(question, [], "odd words", "en", letters=True)[0].text.split("\n\n", 1)[1]
        parts = (f"<|im_start|>user\n{first}<|im_end|>\n<|im_start|>assistant\n", f"{answer}<|im_end|>")
        parts += (f"\n<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n",)
        ids = [token for part in parts for token in tokenizer(part, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            scores = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        by_hand.append(LETTERS[int(scores[letters].argmax())])
    assert chosen == by_hand


def test_the_whole_answer_is_judged_by_its_mean(sets):
    run = opened(sets, "--task", "mmlu_test", "--eval_choice", "text")
    engine, subject = run.engine(), QuestionSet("mmlu_test", str(sets)).read("odd_words", 0)
    chosen = Judge(run, engine, "en", letters=False).choices(subject, 3, lambda done: None)
    from ftk import Message, Prompt

    for question, letter in zip(subject.questions, chosen, strict=True):
        asked = conversation(question, [], "odd words", "en", letters=False)
        scores = engine.score([Prompt((*asked, Message("assistant", text))) for text in question.choices])
        assert letter == LETTERS[scores.index(max(scores))]


def test_what_a_template_writes_before_every_answer_is_read_and_not_judged(sets):
    run = opened(sets, "--template", "qwen3", "--enable_thinking", "false")
    judge = Judge(run, run.engine(), "en", letters=True)
    rows = judge.asked(
        Question("Q?", ("w", "x", "y", "z"), "C"), QuestionSet("mmlu_test", str(sets)).read("odd_words", 0)
    )
    assert [run.tokenizer.decode(follows) for _, follows in rows] == list(LETTERS)
    assert all(run.tokenizer.decode(read).endswith("</think>\n\n") for read, _ in rows)


def test_fewer_solved_questions_are_shown_where_the_model_reads_no_more(sets):
    run = opened(sets)
    judge = Judge(run, run.engine(), "en", letters=True)
    subject = QuestionSet("ceval_val", str(sets)).read("words", 5)
    whole = judge.asked(subject.questions[0], subject)[0][0]
    assert judge.shortened == 0
    judge.limit = len(whole)
    assert 0 < len(judge.asked(subject.questions[0], subject)[0][0]) < len(whole)
    assert judge.shortened == 1


def test_a_model_that_was_trained_to_know_the_answers_is_always_right(ftk_cli, sets, tmp_path):
    words = [Question(text, tuple(choices), answer) for text, *choices, answer in QUESTIONS]
    rows = [
        {"instruction": conversation(one, [], "plain words", "en", letters=True)[0].text, "output": one.answer}
        for one in words
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    run_in(
        tmp_path, model_name_or_path="ftk://random/llama", template="chatml", finetuning_type="full", stage="sft",
        dataset=str(tmp_path / "rows.json"), max_steps=60, learning_rate=5e-3, lr_scheduler_type="constant",
        per_device_train_batch_size=5, cutoff_len=512, use_cpu=True,
    )  # fmt: skip
    mapping = sets / "mmlu" / "mapping.json"
    mapping.write_text(json.dumps({"plain_words": json.loads(mapping.read_text())["plain_words"]}))
    ask = ("eval", tmp_path / "out", "--task", "mmlu_test", "--task_dir", sets, "--n_shot", "0")
    result = ftk_cli(*ask, "--save_dir", tmp_path / "res")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [
        ["subject", "questions", "accuracy"],
        ["plain", "words", "5", "100.00"],
        ["STEM", "5", "100.00"],
        ["Average", "5", "100.00"],
    ]
    content = json.loads((tmp_path / "res" / "results.json").read_text())
    assert content["accuracy"] == {"Average": 1.0, "STEM": 1.0}
    assert content["subjects"]["plain_words"]["answers"] == [one.answer for one in words]
    assert "100.00" not in ftk_cli(*ask, "--base").stdout


def test_killed_it_goes_on_with_the_next_subject(ftk_cli, sets, tmp_path, monkeypatch):
    ask = ["eval", tmp_path / "e.yaml"]
    (tmp_path / "e.yaml").write_text(
        f"model_name_or_path: ftk://random/llama\ntemplate: chatml\ntask: mmlu_test\ntask_dir: {sets}\nn_shot: 1\n"
    )
    whole = ftk_cli(*ask, "--save_dir", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    choices, asked = Judge.choices, []

    def killed(self, subject, *rest):
        if asked:
            raise KeyboardInterrupt
        asked.append(subject.key)
        return choices(self, subject, *rest)

    monkeypatch.setattr(Judge, "choices", killed)
    ftk_cli(*ask, "--save_dir", tmp_path / "half")
    assert list(json.loads((tmp_path / "half" / "results.json").read_text())["subjects"]) == ["odd_words"]
    monkeypatch.setattr(
        Judge, "choices", lambda self, subject, *rest: asked.append(subject.key) or choices(self, subject, *rest)
    )
    again = ftk_cli(*ask, "--save_dir", tmp_path / "half", "--batch_size", "3")
    assert asked == ["odd_words", "plain_words"]
    assert "1 of 2 subjects were answered before" in again.stderr
    assert again.stdout == whole.stdout
    files = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "half")]
    assert files[0] == files[1]
    other = ftk_cli(*ask, "--save_dir", tmp_path / "half", "--lang", "zh")
    assert (other.exit_code, "was made with another lang" in other.stderr) == (2, True)
    assert ftk_cli(*ask, "--save_dir", tmp_path / "half", "--lang", "zh", "--restart").exit_code == 0


def read(task, sets):
    found = QuestionSet(task, str(sets))
    return found.read(found.subjects[0], 1)


@pytest.mark.parametrize(
    ("task", "error"),
    [
        ("mmlu", "expected a set and its split"), ("mmlu_tests", "expected a set and its split"),
        ("arc_test", "there is no such folder"), ("mmlu_val", "has no file for odd_words"),
        ("cmmlu_test", "words.csv:3: answer: 'E' is none of A, B, C, D"), ("ceval_validation", "has no column answer"),
    ],
)  # fmt: skip
def test_what_is_missing_or_broken_is_one_line(sets, task, error):
    (sets / "mmlu" / "mapping.json").write_text('{"odd_words": {}}')
    (sets / "mmlu" / "mmlu.zip").unlink()
    (sets / "cmmlu" / "test" / "words.csv").write_text(csv_of([*QUESTIONS[:2], (*QUESTIONS[2][:5], "E")]))
    (sets / "ceval" / "val" / "words_val.csv").write_text(csv_of([TITLES[:6], (1, *QUESTIONS[0][:5])]))
    with pytest.raises(DataError, match=error):
        read(task, sets)


def test_without_a_task_or_an_engine_that_can_it_says_so(ftk_cli, sets, monkeypatch):
    source = sets / "e.yaml"
    source.write_text("model_name_or_path: ftk://random/llama\ntemplate: chatml\n")
    assert "task: not set" in ftk_cli("eval", source).stderr

    class Silent:
        def close(self):
            pass

    monkeypatch.setattr("ftk.run.Run.engine", lambda self, model=None: Silent())
    result = ftk_cli("eval", source, "--task", "mmlu_test", "--task_dir", sets)
    assert (result.exit_code, "gives no log-probabilities" in result.stderr) == (2, True)


def test_the_keys_of_llamafactory_are_a_plan(tmp_path):
    """Its last published example, examples/train_lora/llama3_lora_eval.yaml."""
    path = tmp_path / "llama3_lora_eval.yaml"
    path.write_text(
        "model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct\nadapter_name_or_path: saves/llama3-8b/lora/sft\n"
        "trust_remote_code: true\nfinetuning_type: lora\ntask: mmlu_test\ntemplate: fewshot\nlang: en\nn_shot: 5\n"
        "save_dir: saves/llama3-8b/lora/eval\nbatch_size: 4\n"
    )
    plan = open_run("eval", str(path)).plan
    assert (plan.notes, plan.value("n_shot"), plan.value("batch_size")) == ((), 5, 4)
