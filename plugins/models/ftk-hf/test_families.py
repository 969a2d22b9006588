"""Each architecture as a tiny random model: one LoRA step, saved, loaded again to the same logits, and asked.

The reference is the trained model in memory before it was saved. Families are names of transformers' ``model_type``.
"""

from __future__ import annotations

import pytest
import torch
from ftk import Message, Prompt, Sampling
from ftk.opening import open_run
from ftk.run import Run

DENSE = (
    "llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm",
    "glm4", "phi", "phi3", "falcon", "bloom", "gpt2", "gpt_neox", "opt", "starcoder2", "cohere", "cohere2", "olmo2",
    "olmo3", "granite", "smollm3", "hunyuan_v1_dense", "ernie4_5", "seed_oss", "exaone4", "stablelm", "persimmon",
    "nemotron", "bitnet", "apertus",
)  # fmt: skip
EXPERTS = (
    "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "glm4_moe", "gpt_oss", "llama4_text",
    "minimax",
)  # fmt: skip
MIXED = ("mamba", "falcon_h1", "lfm2", "qwen3_next", "qwen3_5_text")
SEEING = ("llava", "llava_next")


@pytest.mark.parametrize("family", [*DENSE, *EXPERTS, *MIXED, *SEEING])
def test_a_family_learns_is_saved_loaded_and_asked(family, ftk_run, models):
    finished = ftk_run(model_name_or_path=f"ftk://random/{family}", max_steps=1, learning_rate=0.01)
    run = open_run("chat", finished.folder, [])
    model = run.model(trainable=False)
    (trained,) = models
    with trained.disable_adapter():
        untrained = logits(trained, run)
    assert (logits(trained, run) - untrained).abs().max() > 1e-4
    torch.testing.assert_close(logits(model, run), logits(trained, run), atol=2e-4, rtol=1e-4)
    engine = run.engine()
    (reply,) = engine.generate([Prompt((Message("user", "Hello"),))], Sampling(max_new_tokens=4, do_sample=False))
    assert reply.num_tokens >= 1
    engine.close()


@pytest.fixture
def models(monkeypatch):
    """The models that runs train, as they are in memory."""
    made, make = [], Run._make_model

    def making(run, trainable):
        model = make(run, trainable)
        made.extend([model] if trainable else [])
        return model

    monkeypatch.setattr(Run, "_make_model", making)
    return made


@torch.no_grad()
def logits(model, run):
    ids = run.tokenizer("What does it learn?", return_tensors="pt", add_special_tokens=False)["input_ids"]
    model.eval()
    return model(input_ids=ids, use_cache=False).logits.float()
