"""PPO: formulas written here as loops over single tokens from the papers (Schulman et al. 2016 and 2017, Ziegler et al.
2019), five golden losses, and a task whose best answer is known.

Where the engine does not matter, one without a model answers: what it says depends on the seed alone, so that golden
losses do not move with sampling. ``python test_ppo.py`` writes them anew; say why in the commit.
"""

import contextlib
import json
import math
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from ftk import CheckpointError, ConfigError
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.fakes import on_path, write_plugin
from ftk.testing.runs import plan_in
from ftk_ppo import formulas
from ftk_ppo.stage import Ppo
from ftk_rewards.judging import Judges
from ftk_training import value_head
from ftk_training.rollouts import Rollouts
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
ROWS = [{"instruction": f"Say {word}.", "output": word} for word in ("one", "two", "three", "four", "five")]
BASE = "ftk://random/llama?hidden_size=32&intermediate_size=64"
SETTINGS = {
    "stage": "ppo",
    "model_name_or_path": BASE,
    "finetuning_type": "lora",
    "lora_rank": 4,
    "template": "chatml",
    "infer_backend": "scripted",
    "reward_funcs": "judge.py:judge",
    "max_steps": 5,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "ppo_epochs": 2,
    "max_new_tokens": 6,
    "learning_rate": 1e-2,
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
    assert check_plugin("ppo")


# Formulas


def test_each_token_pays_for_its_divergence_and_the_last_one_gets_the_score():
    now, reference = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.5, -1.0, -0.5])
    found = formulas.token_rewards(now, reference, 2.0, 0.3)
    assert found.tolist() == pytest.approx([-0.3 * 0.5, 0.3 * 1.0, 2.0])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.99, 1.0), (0.8, 0.0)])
def test_advantages_are_the_sum_of_discounted_errors_to_come(gamma, lam):
    rewards, values = [0.1, -0.3, 0.7, 2.0], [0.5, 0.2, -0.4, 1.0]
    advantages, returns = formulas.estimated(torch.tensor(rewards), torch.tensor(values), gamma, lam)
    following = [*values[1:], 0.0]
    errors = [reward + gamma * after - value for reward, value, after in zip(rewards, values, following, strict=True)]
    for t in range(4):
        wanted = sum((gamma * lam) ** (later - t) * errors[later] for later in range(t, 4))
        assert float(advantages[t]) == pytest.approx(wanted, abs=1e-6)
        assert float(returns[t]) == pytest.approx(wanted + values[t], abs=1e-6)


def test_whitening_leaves_deviation_one_and_the_mean_where_asked():
    parts = [torch.tensor([1.0, 4.0]), torch.tensor([-2.0, 0.5, 3.0])]
    moments = formulas.Moments.of(parts)
    found = torch.cat(formulas.whitened(parts, moments))
    assert (float(found.mean()), float(found.std())) == pytest.approx((0.0, 1.0), abs=1e-6)
    kept = torch.cat(formulas.whitened(parts, moments, centred=False))
    assert (float(kept.mean()), float(kept.std())) == pytest.approx((1.3, 1.0), abs=1e-6)
    assert moments + formulas.Moments.of([torch.tensor([7.0])]) == formulas.Moments.of([*parts, torch.tensor([7.0])])


def test_the_cost_of_divergence_follows_the_target():
    control = formulas.Controller(0.2, 6.0, 100)
    control.update(60.0, 10)  # ten times the target counts as a fifth above it
    assert control.cost == pytest.approx(0.2 * (1 + 0.2 * 10 / 100))
    control.update(5.4, 20)
    assert control.cost == pytest.approx(0.2 * 1.02 * (1 - 0.1 * 20 / 100))
    fixed = formulas.Controller(0.2, None, 100)
    fixed.update(60.0, 10)
    assert fixed.cost == 0.2


def test_the_loss_is_the_papers(tmp_path):
    own = Run(plan_in(tmp_path, **given(tmp_path, infer_backend="huggingface", ppo_cliprange=0.1, ppo_vf_coef=0.3)))
    stage = Ppo(own, Judges(own))
    generator = torch.Generator().manual_seed(0)
    now, values, old, before, returns, worth = (torch.randn(20, generator=generator) * 0.4 for _ in range(6))
    known = {"old": old, "values": before, "returns": returns, "advantages": worth}
    found, metrics = stage.total(now, values, known)
    policy = critic = clipped = 0.0
    for t in range(20):
        ratio = math.exp(now[t] - old[t])
        kept = min(max(ratio, 0.9), 1.1)
        policy -= min(ratio * float(worth[t]), kept * float(worth[t]))
        clipped += kept * float(worth[t]) < ratio * float(worth[t])
        near = min(max(float(values[t]), float(before[t]) - 0.2), float(before[t]) + 0.2)
        critic += 0.5 * max((float(values[t]) - float(returns[t])) ** 2, (near - float(returns[t])) ** 2)
    assert float(found) == pytest.approx(policy + 0.3 * critic, rel=1e-5)
    assert float(metrics["clip_fraction"]) == clipped > 0


# Runs


def test_five_losses_have_not_moved(scripted, tmp_path):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert [line["loss"] for line in log_of(run(tmp_path).folder)] == pytest.approx(golden, rel=1e-4, abs=1e-6)


def test_accumulation_changes_neither_losses_nor_gradients(scripted, tmp_path):
    found = []
    for rows, accumulated in ((8, 1), (4, 2), (1, 8)):
        folder = tmp_path / f"{rows}"
        folder.mkdir()
        more = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulated, "max_steps": 3}
        lines = log_of(run(folder, **more).folder)
        found.append([line[key] for line in lines for key in ("loss", "grad_norm", "value_loss")])
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-5)
    assert found[2] == pytest.approx(found[0], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_resume_in_the_middle_of_a_phase_changes_nothing(scripted, tmp_path, method):
    """Answers are made every four steps; the kill is after two. The cost and the scores' moments go on, too."""
    more = {
        "finetuning_type": method, "ppo_buffer_size": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 6,
        "ppo_score_norm": True, "ppo_whiten_rewards": True, "ppo_target": 0.1, "ppo_horizon": 20,
        "value_head_dropout": 0.1,
    }  # fmt: skip
    folder = run(tmp_path, **more).folder
    wanted, head = log_of(folder), load_file(folder / value_head.FILE)
    for step in (4, 6):
        shutil.rmtree(folder / f"checkpoint-{step}")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    again = run(tmp_path, **more)
    assert log_of(again.folder) == wanted
    costs = [line["kl_coef"] for line in wanted if "kl_coef" in line]
    assert len(costs) == 2
    assert costs[0] == pytest.approx(0.2)
    assert costs[1] == pytest.approx(0.2 * (1 - 0.2 * 8 / 20)), "a new adapter has not diverged at all"
    after = load_file(again.folder / value_head.FILE)
    assert all(torch.equal(head[name], after[name]) for name in head)


def test_a_checkpoint_of_another_stage_is_refused(tmp_path):
    own = Run(plan_in(tmp_path, **given(tmp_path, infer_backend="huggingface")))
    judges = Judges(own)
    with pytest.raises(CheckpointError, match=r"has no rollouts\.json"):
        Rollouts(own, Ppo(own, judges), judges.judge).restore(tmp_path)


def test_it_evaluates_and_leaves_its_moments_alone(scripted, tmp_path):
    more = {"val_size": 2, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 3, "ppo_score_norm": True}
    watched = tmp_path / "watched"
    watched.mkdir()
    lines = log_of(run(watched, **more).folder)
    evaluations = [line for line in lines if "eval_loss" in line]
    assert len(evaluations) == 3
    assert evaluations[0]["eval_reward"] == evaluations[2]["eval_reward"], "the same prompts get the same seeds"
    assert evaluations[0]["eval_kl"] == pytest.approx(evaluations[0]["eval_kl"])
    plain = tmp_path / "plain"
    plain.mkdir()
    alone = log_of(run(plain, **{**more, "eval_strategy": "no"}).folder)
    assert [line["loss"] for line in lines if "loss" in line] == [line["loss"] for line in alone if "loss" in line]


def test_the_reward_rises_to_its_maximum_on_a_task_with_a_known_answer(tmp_path):
    """The best answer to anything is one token and the end: the reward falls with each further token."""
    (tmp_path / "short.py").write_text("def short(tokens):\n    return [1 - (len(one) - 1) / 11 for one in tokens]\n")
    more = {
        "model_name_or_path": "ftk://tiny-chat", "infer_backend": "huggingface", "finetuning_type": "lora",
        "lora_rank": 8, "reward_funcs": "short.py:short", "max_steps": 20, "ppo_epochs": 2, "max_new_tokens": 12,
        "per_device_train_batch_size": 32, "gradient_accumulation_steps": 1, "temperature": 1.5,
        "learning_rate": 2e-2, "lr_scheduler_type": "constant", "ppo_init_kl_coef": 0.01, "ppo_vf_coef": 0.5,
    }  # fmt: skip
    rewards = [line["reward"] for line in log_of(run(tmp_path, **more).folder) if "reward" in line]
    assert rewards[0] < 0.5
    assert rewards[-1] > 0.9, rewards


def test_the_keys_of_llamafactory_have_an_effect(tmp_path):
    """All that its PPO reads of RLHFArguments and GeneratingArguments."""
    keys = {
        "ppo_buffer_size": 2, "ppo_epochs": 3, "ppo_score_norm": True, "ppo_target": 5.0, "ppo_whiten_rewards": True,
        "ref_model": BASE, "ref_model_adapters": "some", "ref_model_quantization_bit": 4, "reward_model": "other",
        "reward_model_adapters": "more", "reward_model_quantization_bit": 8, "reward_model_type": "full",
        "max_new_tokens": 512, "top_k": 1, "top_p": 0.9, "temperature": 0.8, "repetition_penalty": 1.1,
    }  # fmt: skip
    plan = plan_in(tmp_path, **given(tmp_path, **keys, infer_backend="huggingface"))
    assert plan.notes == ()


# Reward models


def reward_adapter(folder):
    """An adapter with a value head, as stage rm leaves it, with random weights that say something."""
    made = run_in(
        folder, stage="sft", model_name_or_path=BASE, finetuning_type="lora", lora_rank=2, template="chatml",
        max_steps=1, learning_rate=0.1, output_dir=str(folder / "judge"),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    head = {value_head.KEYS[0]: torch.randn(1, 32, generator=generator), value_head.KEYS[1]: torch.tensor([0.5])}
    save_file(head, made.folder / value_head.FILE)
    return str(made.folder)


def test_a_reward_by_adapter_equals_one_by_a_full_model_and_neither_learns(scripted, tmp_path):
    """With a rank of its own, beside a policy of another; the full model is the same adapter merged."""
    judge = reward_adapter(tmp_path)
    before = Path(judge, "adapter_model.safetensors").read_bytes()
    found = {}
    for kind, more in {
        "lora": {"reward_model": judge, "reward_model_type": "lora"},
        "full": {"reward_model": BASE, "reward_model_adapters": judge, "reward_model_type": "full"},
    }.items():
        folder = tmp_path / kind
        folder.mkdir()
        made = run(folder, **more, reward_funcs="none", max_steps=3)
        found[kind] = log_of(made.folder)
        assert not (made.folder / "reward").exists()
        assert "reward" not in json.loads((made.folder / "adapter_config.json").read_text())
    for one, other in zip(found["lora"], found["full"], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
    assert abs(found["lora"][0]["reward"]) > 1e-3
    assert Path(judge, "adapter_model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"reward_funcs": "none"}, r"nothing judges the answers"),
        (
            {"reward_model": "judge", "finetuning_type": "full"},
            r"reward_model: judge: reward_model_type lora takes turns with an adapter .* reward_model_type: full",
        ),
    ],
    ids=["no reward", "no adapter"],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(scripted, tmp_path, monkeypatch, more, said):
    monkeypatch.setattr(Run, "model", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=said) as caught:
        run(tmp_path, **more)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_value_head_is_no_reward_model(scripted, tmp_path):
    judge = reward_adapter(tmp_path)
    Path(judge, value_head.FILE).unlink()
    with pytest.raises(ConfigError, match=r"reward_model: .*holds no value_head.safetensors"):
        run(tmp_path, reward_model=judge, reward_funcs="none")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        write_plugin(Path(name) / "installed", "scripted", ENGINE)
        stack.enter_context(on_path(Path(name) / "installed"))
        made = log_of(run(Path(name)).folder)
        GOLDEN.write_text("".join(f"{line['loss']:.7f}\n" for line in made))
