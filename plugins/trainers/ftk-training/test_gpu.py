"""Training on a GPU in bfloat16. Reference: the same run in float32 on the CPU."""

import json
from importlib.util import find_spec

import pytest
import torch

ROWS = [{"instruction": f"Say {word} {count} times.", "output": " ".join([word] * count)}
        for count in (1, 7, 3, 12) for word in ("one", "two")]  # fmt: skip
RUN = {
    "max_steps": 4, "per_device_train_batch_size": 2, "packing": True, "cutoff_len": 128, "logging_steps": 1,
    "learning_rate": 1e-3, "template": "chatml", "disable_shuffling": True,
}  # fmt: skip


def losses(ftk_run, folder, **more):
    (folder / "rows.json").write_text(json.dumps(ROWS))
    settings = {
        **RUN,
        **more,
        "dataset": str(folder / "rows.json"),
        "output_dir": str(folder / "-".join(map(str, more.values()))),
    }
    made = ftk_run(**settings).folder
    return [json.loads(line)["loss"] for line in (made / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="trains on a CUDA device, and there is none")
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("attention", ["sdpa", "fa2"])
def test_packed_rows_in_bfloat16_lose_what_they_lose_on_the_cpu(ftk_run, tmp_path, method, attention):
    if attention == "fa2" and find_spec("flash_attn") is None:
        pytest.skip("flash-attn is not installed")
    found = losses(ftk_run, tmp_path, finetuning_type=method, flash_attn=attention, use_cpu=False, bf16=True)
    assert found == pytest.approx(losses(ftk_run, tmp_path, finetuning_type=method, use_cpu=True), rel=2e-2)
