"""Every quantiser that is installed, in each of its bits, on a dense model, a mixture of experts and one that sees:
three steps of LoRA beside it, saved, opened again, generating, merged. The reference is the model that trained."""

import os

import pytest
import torch
from ftk import PluginError, rundir
from ftk.opening import open_run
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing.runs import plan_in

IDS_BT = torch.tensor([[5, 6, 7, 8, 9, 10]])
FAMILIES = ("llama", "mixtral", "llava")
SLOW = {("quanto", 2), ("quanto", 4)}
"""Compile an extension for a minute or two."""


def cases():
    """(quantiser, bits, family): each number of bits on a dense model, the one nearest to four on the others."""
    for name, spec in Registry.discover().specs("quantizer").items():
        nearest = min(spec.bits, key=lambda bits: abs(bits - 4), default=None)
        for bits in spec.bits:
            marks = [pytest.mark.gpu] if spec.gpu else []
            for family in FAMILIES if bits == nearest else FAMILIES[:1]:
                yield pytest.param(name, bits, family, marks=marks, id=f"{name}-{bits}-{family}")


def runnable(name, bits):
    """Skip what cannot run here, saying why."""
    try:
        spec = Registry.discover().find("quantizer", name)
    except PluginError as missing:
        pytest.skip(str(missing))
    if spec.gpu and not torch.cuda.is_available():
        pytest.skip(f"{name} needs a GPU")
    if (name, bits) in SLOW and not os.environ.get("FTK_SLOW_TESTS"):
        pytest.skip(f"{name} compiles an extension for a minute; FTK_SLOW_TESTS=1 runs this")


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS_BT, use_cache=False).logits


@pytest.mark.parametrize(("name", "bits", "family"), list(cases()))
def test_a_model_in_few_bits_trains_is_saved_opened_and_merged(tmp_path, name, bits, family):
    runnable(name, bits)
    keys = {
        "model_name_or_path": f"ftk://random/{family}",
        "quantization_method": name,
        "quantization_bit": bits,
        "finetuning_type": "lora",
    }
    run = Run(plan_in(tmp_path, **keys, max_steps=3))
    rundir.make(run.output_dir)
    metrics = run.plan.one("trainer").load()(run)
    assert metrics["train_steps"] == 3
    trained = logits(run.model(trainable=True))
    untouched = logits(run.model(trainable=True).disable_adapter_layers() or run.model(trainable=True))
    assert (trained - untouched).abs().max() > 1e-3

    words = [f"--{key}={value}" for key, value in keys.items()]
    again = open_run("chat", None, [*words, f"--adapter_name_or_path={run.output_dir}"]).model(trainable=False)
    torch.testing.assert_close(logits(again), trained)
    assert again.generate(IDS_BT, max_new_tokens=2, do_sample=False).shape == (1, 8)

    merging = open_run("chat", None, words)
    plain = merging.dequantized(merging.model(trainable=False))
    assert type(plain.get_input_embeddings()) is torch.nn.Embedding
    assert not getattr(plain, "is_quantized", False)
    merged = _with_adapter(plain, run.output_dir)
    torch.testing.assert_close(logits(merged), trained, atol=2e-2 if name == "bnb" and bits == 8 else 1e-5, rtol=1e-4)


def _with_adapter(model, folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
