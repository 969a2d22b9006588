"""GRPO: formulas written here as loops over single tokens from the papers (DeepSeekMath eq. 3 and 4, DAPO, Dr. GRPO,
GSPO, CISPO), five golden losses, and a task whose best answer is known.

Where the engine does not matter, one without a model answers: what it says depends on the seed alone, so that golden
losses do not move with sampling. ``python test_grpo.py`` writes them anew; say why in the commit.
"""

import contextlib
import json
import math
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from ftk import ConfigError, Sampling
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.fakes import on_path, write_plugin
from ftk.testing.runs import plan_in
from ftk_grpo import losses
from ftk_grpo.stage import Grpo
from ftk_rewards.judging import Judges
from ftk_training import value_head
from ftk_training.logprobs import LogProbs
from ftk_training.rhythm import Rhythm
from ftk_training.rolled import sampling_of
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).with_name("golden_losses.txt")
ENGINE = """
import ftk

@ftk.hookimpl
def ftk_inference_engines():
    yield ftk.Engine("scripted", target="ftk_scripted:build", summary="Says what the seed says")

def build(run, model):
    return Scripted()

class Scripted:
    def generate(self, prompts, sampling):
        import torch

        generator = torch.Generator().manual_seed(sampling.seed)
        replies = []
        for _ in prompts:
            longest = sampling.max_new_tokens
            length = int(torch.randint(1, longest + 1, (1,), generator=generator))
            tokens = torch.randint(5, 60, (length,), generator=generator).tolist()
            finish = "stop" if length < longest else "length"
            replies.append(ftk.Reply(f"{sum(tokens)}", finish, 0, length, {"tokens": tokens}))
        return replies
"""
JUDGE = "def judge(tokens):\n    return [sum(one) % 7 / 7 for one in tokens]\n"
ROWS = [{"instruction": f"Say {word}.", "output": word, "word": word} for word in ("one", "two", "three", "four")]
SETTINGS = {
    "stage": "grpo",
    "model_name_or_path": "ftk://random/llama?hidden_size=32&intermediate_size=64",
    "finetuning_type": "lora",
    "lora_rank": 4,
    "template": "chatml",
    "infer_backend": "scripted",
    "reward_funcs": "judge.py:judge",
    "max_steps": 5,
    "num_generations": 4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_new_tokens": 6,
    "learning_rate": 1e-2,
    "beta": 0.1,
}
TIMES = ("seconds", "tokens_per_second", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


@pytest.fixture
def scripted(fake_plugin):
    fake_plugin("scripted", ENGINE)


def given(folder, **more):
    (folder / "judge.py").write_text(JUDGE)
    dataset = folder / "words.json"
    dataset.write_text(json.dumps(ROWS))
    return {**SETTINGS, "dataset": str(dataset), **more}


def log_of(folder):
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def run(folder, **more):
    return run_in(folder, **given(folder, **more))


def test_the_plugin_keeps_the_contract():
    assert check_plugin("grpo")


# Formulas


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_an_answer_is_worth_its_distance_from_the_groups_mean(scale):
    rewards = [1.0, 0.0, 0.5, 2.5, 3.0, 3.0]
    found, deviations = losses.advantages(torch.tensor(rewards, dtype=torch.float64), 3, scale)
    for number, reward in enumerate(rewards):
        group = rewards[number // 3 * 3 : number // 3 * 3 + 3]
        mean = sum(group) / 3
        spread = math.sqrt(sum((one - mean) ** 2 for one in group) / 2)
        whole = sum(rewards) / 6
        all_spread = math.sqrt(sum((one - whole) ** 2 for one in rewards) / 5)
        divisor = {"group": spread + 1e-4, "batch": all_spread + 1e-4, "none": 1.0}[scale]
        assert found[number] == pytest.approx((reward - mean) / divisor, rel=1e-9)
        assert deviations[number // 3] == pytest.approx(spread)


def test_groups_without_a_difference_teach_nothing():
    found, deviations = losses.advantages(torch.ones(8), 4, "group")
    assert not found.any()
    assert not deviations.any()


LENGTHS = (3, 1, 4)
LONGEST = 6


def known(seed=0):
    """Log-probabilities of three answers now, before and of the reference, and what each answer is worth."""
    generator = torch.Generator().manual_seed(seed)
    now, old, reference = (-3 * torch.rand(sum(LENGTHS), generator=generator) for _ in range(3))
    worth = torch.tensor([1.3, -0.7, -0.6])
    return now, old, reference, worth


def naive(loss_type, level, *, epsilon, high, delta, beta, correction):
    now, old, reference, worth = (one.tolist() for one in known())
    total, place = 0.0, 0
    for answer, length in enumerate(LENGTHS):
        advantage, sum_ = worth[answer], 0.0
        span = range(place, place + length)
        together = math.exp(sum(now[t] - old[t] for t in span) / length)
        for t in span:
            ratio = together if level == "sequence" else math.exp(now[t] - old[t])
            if loss_type == "cispo":
                loss = -min(ratio, high) * advantage * now[t]
            elif loss_type == "sapo":
                heat = 1.0 if advantage > 0 else 1.05
                loss = -4 / heat / (1 + math.exp(-heat * (ratio - 1))) * advantage
            else:
                free = ratio if delta is None else min(ratio, delta)
                loss = -min(free * advantage, min(max(ratio, 1 - epsilon), 1 + high) * advantage)
            apart = reference[t] - now[t]
            kl = math.exp(apart) - apart - 1
            sum_ += loss + beta * kl * (ratio if correction else 1)
        total += {"grpo": sum_ / length, "sapo": sum_ / length, "dr_grpo": sum_ / LONGEST}.get(loss_type, sum_)
        place += length
    return total


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo"])
@pytest.mark.parametrize(
    ("more", "correction"),
    [({}, True), ({"epsilon": 0.1, "epsilon_high": 0.6, "delta": 1.4, "use_bias_correction_kl": False}, False)],
    ids=["defaults", "changed"],
)
def test_the_loss_is_the_papers(tmp_path, level, loss_type, more, correction):
    settings = {"loss_type": loss_type, "importance_sampling_level": level, **more, "infer_backend": "huggingface"}
    own = Run(plan_in(tmp_path, **given(tmp_path, **settings)))
    stage = Grpo(own, Judges(own))
    stage.reference = object()
    now, old, reference, worth = known()
    answers_N = torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS))
    found, metrics = stage.total(
        LogProbs(now, answers_N, 3), {"old": old, "reference": reference, "advantages": worth[answers_N]}
    )
    epsilon = more.get("epsilon", 0.2)
    wanted = naive(
        loss_type, level, epsilon=epsilon, high=more.get("epsilon_high", epsilon), delta=more.get("delta"), beta=0.1,
        correction=correction,
    )  # fmt: skip
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    apart = (reference - now).tolist()
    assert float(metrics["kl"][0]) == pytest.approx(sum(math.exp(one) - one - 1 for one in apart), rel=1e-5)


def test_what_is_clipped_has_no_gradient():
    ratios = torch.tensor([0.5, 0.5, 1.0, 1.5, 1.5], requires_grad=True)
    worth = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    losses.clipped(ratios, worth, 0.2, 0.3).sum().backward()
    assert (ratios.grad == 0).tolist() == losses.is_clipped(ratios, worth, 0.2, 0.3).tolist()
    assert losses.is_clipped(ratios, worth, 0.2, 0.3).tolist() == [False, True, False, True, False]


# Runs


def test_five_losses_have_not_moved(scripted, tmp_path):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert [line["loss"] for line in log_of(run(tmp_path).folder)] == pytest.approx(golden, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_accumulation_changes_neither_losses_nor_gradients(scripted, tmp_path, loss_type):
    found = []
    for rows, accumulated in ((8, 1), (4, 2), (1, 8)):
        folder = tmp_path / f"{rows}"
        folder.mkdir()
        more = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulated, "max_steps": 3}
        lines = log_of(run(folder, **more, loss_type=loss_type).folder)
        found.append([line[key] for line in lines for key in ("loss", "grad_norm", "reward", "kl")])
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-5)
    assert found[2] == pytest.approx(found[0], rel=1e-4, abs=1e-5)


def test_a_resume_in_the_middle_of_a_phase_changes_nothing(scripted, tmp_path):
    """Answers are made every four steps; the kill is after two, with half of them trained."""
    more = {
        "num_iterations": 2, "steps_per_generation": 4, "save_strategy": "steps", "save_steps": 2, "lora_dropout": 0.1,
        "max_steps": 6, "log_completions": True,
    }  # fmt: skip
    folder = run(tmp_path, **more).folder
    wanted, answers = log_of(folder), (folder / "completions.jsonl").read_text()
    for step in (4, 6):
        shutil.rmtree(folder / f"checkpoint-{step}")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    assert (folder / "checkpoint-2" / "rollouts-0.safetensors").exists()
    again = run(tmp_path, **more)
    assert log_of(again.folder) == wanted
    assert (again.folder / "completions.jsonl").read_text() == answers
    assert len(answers.splitlines()) == 2 * 16
    assert [("reward" in line) for line in wanted] == [True, False, False, False, True, False]


def test_prompts_and_columns_reach_rewards_and_weights_add_them_up(scripted, tmp_path):
    (tmp_path / "seen.py").write_text(
        "import json\n"
        "def see(prompts, replies, references, word, rows, finished, run):\n"
        "    assert [one[-1]['content'] for one in prompts] == [f'Say {one}.' for one in word]\n"
        "    assert references == word == [row['output'] for row in rows]\n"
        "    assert len(set(word[:4])) == 1 and len(word) == 8\n"
        "    return [float(one) for one in finished]\n"
    )
    more = {"reward_funcs": "seen.py:see,length", "reward_weights": [2.0, 0.5], "reward_length": 3, "max_steps": 1}
    line = log_of(run(tmp_path, **more).folder)[0]
    assert line["reward"] == pytest.approx(2 * line["reward/see"] + 0.5 * line["reward/length"])
    assert line["reward/see"] == pytest.approx(1 - line["clipped_ratio"])


def test_a_reward_adapter_judges_beside_a_function_and_leaves_no_trace(scripted, tmp_path):
    """The policy has no value head of its own here. The score is the head on the model with that adapter, by hand."""
    base = SETTINGS["model_name_or_path"]
    sft = {"stage": "sft", "lora_rank": 2, "max_steps": 1, "learning_rate": 0.1, "output_dir": str(tmp_path / "judge")}
    judge = run_in(tmp_path, model_name_or_path=base, finetuning_type="lora", template="chatml", **sft).folder
    weight = torch.randn(1, 32, generator=torch.Generator().manual_seed(3))
    save_file({"v_head.summary.weight": weight, "v_head.summary.bias": torch.tensor([0.5])}, judge / value_head.FILE)
    more = {"reward_model": str(judge), "reward_weights": "0.5,2", "max_steps": 1, "save_strategy": "steps"}
    folder = run(tmp_path, **more, log_completions=True).folder
    line = log_of(folder)[0]
    assert line["reward"] == pytest.approx(0.5 * line["reward/judge"] + 2 * line["reward/reward_model"], rel=1e-4)
    assert not {path.name for path in folder.rglob("*")} & {"reward", value_head.FILE}
    saved = load_file(folder / "adapter_model.safetensors")
    assert all("v_head" not in name and ".reward." not in name for name in saved)

    merged = Run(plan_in(tmp_path, **given(tmp_path), adapter_name_or_path=str(judge))).model(trainable=False)
    lines = [json.loads(one) for one in (folder / "completions.jsonl").read_text().splitlines()]
    own = Run(plan_in(tmp_path, **given(tmp_path)))
    wanted = []
    for one, tokens in zip(lines, answered(own, len(lines)), strict=True):
        ids = torch.tensor([[*own.tokenizer(one["prompt"], add_special_tokens=False)["input_ids"], *tokens]])
        with torch.no_grad():
            hidden = merged.model(ids, use_cache=False).last_hidden_state[0, -1]
        assert one["completion"] == str(sum(tokens))
        wanted.append(float(weight[0] @ hidden) + 0.5)
    assert line["reward/reward_model"] == pytest.approx(sum(wanted) / len(wanted), rel=1e-3, abs=1e-4)


def answered(own, num):
    """What the scripted engine says to the first phase."""
    seed = Rhythm(4, rows=4, batches=2, group=4, seed=own.seed).number(0, 0, 1) % 2**31
    replies = own.engine(object()).generate([None] * num, Sampling(max_new_tokens=6, seed=seed))
    return [reply.meta["tokens"] for reply in replies]


def test_it_evaluates_on_prompts(scripted, tmp_path):
    more = {"val_size": 2, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 2, "num_generations_eval": 2}
    lines = [line for line in log_of(run(tmp_path, **more).folder) if "eval_loss" in line]
    assert [0 <= line["eval_reward"] <= 1 for line in lines] == [True, True]
    assert lines[0]["eval_reward"] == lines[1]["eval_reward"], "the same prompts get the same seeds"
    assert lines[0]["eval_kl"] != lines[1]["eval_kl"], "and another model"


def test_the_reward_rises_to_its_maximum_on_a_task_with_a_known_answer(tmp_path):
    """The best answer to anything is one token and the end: the reward falls with each further token."""
    (tmp_path / "short.py").write_text("def short(tokens):\n    return [1 - (len(one) - 1) / 11 for one in tokens]\n")
    more = {
        "model_name_or_path": "ftk://tiny-chat", "infer_backend": "huggingface", "finetuning_type": "lora",
        "lora_rank": 8, "reward_funcs": "short.py:short", "max_steps": 12, "num_generations": 8, "beta": 0.0,
        "per_device_train_batch_size": 32, "gradient_accumulation_steps": 1, "max_new_tokens": 12, "temperature": 1.5,
        "learning_rate": 1e-2, "lr_scheduler_type": "constant",
    }  # fmt: skip
    rewards = [line["reward"] for line in log_of(run(tmp_path, **more).folder)]
    assert rewards[0] < 0.5
    assert rewards[-1] > 0.9, rewards


def test_another_engine_takes_over_the_weights_of_each_phase_and_its_text_becomes_tokens(fake_plugin, tmp_path):
    """One that loads its own weights and does not tell what it sampled."""
    fake_plugin(
        "apart",
        """
        import ftk

        class Apart:
            def __init__(self, run):
                self.folder, self.seen = run.output_dir, []

            def refresh(self, model):
                weights = [one for name, one in model.named_parameters() if "lora_B" in name]
                self.seen.append(float(sum(one.abs().sum() for one in weights)))
                (self.folder / "seen.txt").write_text(" ".join(map(str, self.seen)))

            def generate(self, prompts, sampling):
                return [ftk.Reply("Paris " * (n % 3 + 1), "stop", 0, 0) for n, _ in enumerate(prompts)]

        @ftk.hookimpl
        def ftk_inference_engines():
            yield ftk.Engine("apart", target="ftk_apart:build", loads_model=False, summary="Has weights of its own")

        def build(run, model):
            assert model is None
            return Apart(run)
        """,
    )
    (tmp_path / "ends.py").write_text(
        "def ends(tokens, replies, run):\n"
        "    tokenizer = run.tokenizer\n"
        "    for ids, text in zip(tokens, replies):\n"
        "        assert ids == [*tokenizer(text, add_special_tokens=False)['input_ids'], tokenizer.eos_token_id]\n"
        "    return [float(len(ids)) for ids in tokens]\n"
    )
    folder = run(tmp_path, infer_backend="apart", reward_funcs="ends.py:ends", max_steps=3).folder
    seen = [float(word) for word in (folder / "seen.txt").read_text().split()]
    assert seen[0] == 0 < seen[1] < seen[2]


# Refused


def test_an_engine_that_cannot_take_over_weights_is_refused(fake_plugin, tmp_path):
    fake_plugin("fixed", ENGINE.replace("scripted", "fixed").replace("summary=", "loads_model=False, summary="))
    with pytest.raises(ConfigError, match=r"infer_backend: fixed: cannot take over the weights of a model in training"):
        run(tmp_path, infer_backend="fixed")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"reward_funcs": "none"}, r"nothing judges the answers. Set reward_funcs"),
        (
            {"num_generations": 3},
            r"num_generations: 3: 8 answers are made at once .* Set per_device_train_batch_size: 3",
        ),
        ({"steps_per_generation": 3}, r"steps_per_generation: 3: must be a multiple of gradient_accumulation_steps"),
        ({"temperature": 0.0}, r"temperature: 0.0: a model that learns from its answers must sample"),
        ({"reward_weights": [1.0, 2.0]}, r"reward_weights: .*2 weights for 1 rewards \(judge\)"),
        ({"streaming": True}, r"streaming: .*reads the data itself"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(scripted, tmp_path, monkeypatch, more, said):
    monkeypatch.setattr(Run, "model", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=said) as caught:
        run(tmp_path, **more)
    assert "\n" not in str(caught.value)


def test_what_is_sampled_is_what_the_policy_says_unless_the_user_says_otherwise(scripted, tmp_path):
    plain = sampling_of(Run(plan_in(tmp_path, **given(tmp_path))))
    assert (plain.temperature, plain.top_p, plain.top_k, plain.do_sample) == (1.0, 1.0, 0, True)
    told = sampling_of(Run(plan_in(tmp_path, **given(tmp_path, temperature=0.7, top_p=0.9, top_k=20))))
    assert (told.temperature, told.top_p, told.top_k) == (0.7, 0.9, 20)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        write_plugin(Path(name) / "installed", "scripted", ENGINE)
        stack.enter_context(on_path(Path(name) / "installed"))
        made = log_of(run(Path(name)).folder)
        GOLDEN.write_text("".join(f"{line['loss']:.7f}\n" for line in made))
