"""NEFTune against algorithm 1 of the paper: noise of uniform(-1, 1) times alpha / sqrt(L d), each row by its own L."""

import json

import pytest
import torch
from ftk import ConfigError
from ftk.errors import FtkError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_neftune.noise import lengths_of, noise_like
from peft import LoraConfig, get_peft_model

ROWS = [{"instruction": "say " * (1 + 5 * (n % 3)), "output": "well then " * (1 + n % 4)} for n in range(12)]


def test_the_plugin_keeps_the_contract():
    assert check_plugin("neftune")


def naive(states, lengths, alpha):
    """Row by row, as the paper writes it."""
    noise = torch.empty_like(states).uniform_(-1, 1)
    for row, length in enumerate(lengths):
        noise[row] *= alpha / (length * states.shape[-1]) ** 0.5
        noise[row, length:] = 0
    return noise


def test_every_row_gets_noise_by_its_own_length_and_padding_none():
    states = torch.zeros(3, 10, 8)
    mask = (torch.arange(10) < torch.tensor([10, 4, 1])[:, None]).long()
    torch.manual_seed(0)
    wanted = naive(states, [10, 4, 1], 5.0)
    torch.manual_seed(0)
    found = noise_like(states, lengths_of({"attention_mask": mask}), 5.0)
    torch.testing.assert_close(found, wanted)


def test_documents_of_a_packed_row_count_for_themselves():
    positions = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]])
    assert lengths_of({"position_ids": positions}).tolist() == [[3, 3, 3, 2, 2, 1], [6] * 6]


def test_without_a_mask_the_length_is_the_batchs():
    states = torch.zeros(2, 10, 8)
    torch.manual_seed(0)
    found = noise_like(states, lengths_of({}), 5.0)
    torch.manual_seed(0)
    torch.testing.assert_close(found, naive(states, [10, 10], 5.0))


def test_the_noise_is_as_strong_as_the_paper_says():
    """Uniform noise has a mean of squares of 1/3, so the expected norm of a row's noise is alpha sqrt(1/3)."""
    states = torch.zeros(50, 40, 64)
    torch.manual_seed(0)
    norms = noise_like(states, None, 15.0).flatten(1).norm(dim=1)
    assert norms.mean().item() == pytest.approx(15 / 3**0.5, rel=0.01)


def noisy(tmp_path, address="ftk://random/llama", **more):
    settings = {"neftune_noise_alpha": 5, "finetuning_type": "full", "model_name_or_path": address, **more}
    return Run(plan_in(tmp_path, **settings)).model(trainable=True)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "llava"])
def test_only_training_is_noisy(tmp_path, family):
    model = noisy(tmp_path, f"ftk://random/{family}")
    embeddings = model.get_input_embeddings()
    seen = []
    embeddings.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    ids, mask = torch.arange(5, 25).view(2, 10), torch.ones(2, 10, dtype=torch.int64)
    mask[1, 6:] = 0
    for mode in (True, False, False):
        model.train(mode)(input_ids=ids, attention_mask=mask)
    noise = (seen[0] - seen[1]).abs()
    assert torch.equal(seen[1], seen[2])
    assert (noise[1, 6:] == 0).all()
    for row, length in ((0, 10), (1, 6)):
        limit = 5 / (length * seen[0].shape[-1]) ** 0.5
        assert 0.8 * limit < noise[row, :length].max() <= limit * 1.0001


@pytest.mark.parametrize(
    "adapter", [{"modules_to_save": ["embed_tokens"]}, {"target_modules": ["embed_tokens", "q_proj"]}]
)
def test_noise_reaches_embeddings_that_an_adapter_has_wrapped(tmp_path, adapter):
    config = LoraConfig(task_type="CAUSAL_LM", r=2, **{"target_modules": ["q_proj"], **adapter})
    model = get_peft_model(noisy(tmp_path), config)
    ids = torch.arange(5, 15)[None]
    model.train()
    one, other = (model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for _ in range(2))
    assert not torch.equal(one, other)
    model.eval()
    assert torch.equal(*(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for _ in range(2)))


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "more", [{"finetuning_type": "full"}, {"packing": True, "gradient_checkpointing": True}], ids=str
)
def test_a_run_resumes_with_the_same_noise_and_answers_without(tmp_path, more):
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(ROWS))
    settings = {"dataset": str(rows), "template": "chatml", "max_steps": 4, "cutoff_len": 32, **more}
    noisy_settings = {**settings, "neftune_noise_alpha": 50}
    finished = run_in(tmp_path, **noisy_settings, save_strategy="steps", save_steps=2)
    again = run_in(
        tmp_path, **noisy_settings, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(finished.folder / "checkpoint-2"),
    )  # fmt: skip
    assert losses(again.folder)[-2:] == losses(finished.folder)[-2:]
    quiet = run_in(tmp_path, **settings, output_dir=str(tmp_path / "quiet"))
    assert losses(quiet.folder)[0] != pytest.approx(losses(finished.folder)[0], rel=1e-6)
    model = open_run("chat", str(finished.folder)).model(trainable=False).train()
    ids = torch.arange(5, 15)[None]
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_negative_noise_is_refused(tmp_path):
    with pytest.raises((ConfigError, FtkError), match="neftune_noise_alpha"):
        plan_in(tmp_path, neftune_noise_alpha=-1)
