"""TRL's rows for supervised fine-tuning, in an environment with ``trl``: reading the file and making the trainer, which
tokenises in its constructor. The model and the tokenizer are loaded before the clock starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import load_dataset
from outcome import IGNORED, asked, tell, timed
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def pairs(rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    known = next(name for name in ("labels", "assistant_masks") if name in rows.column_names)
    for batch in rows.select_columns(["input_ids", known]).with_format("numpy").iter(batch_size=1000):
        for ids, marks in zip(batch["input_ids"], batch[known], strict=True):
            yield ids, marks if known == "labels" else np.where(marks == 1, ids, IGNORED)


def main() -> None:
    given = asked()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model)
    packing = {"packing": True, "packing_strategy": "bfd"} if given.packing else {}
    with timed():
        rows = load_dataset("json", data_files=f"{given.data}/{given.dataset}_messages.jsonl", split="train")
        config = SFTConfig(
            output_dir=str(Path(given.out) / "trl"), max_length=given.cutoff, assistant_only_loss=True,
            dataset_num_proc=given.workers if given.workers > 1 else None, report_to="none", bf16=False, use_cpu=True,
            gradient_checkpointing=False, **packing,
        )  # fmt: skip
        trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    tell(pairs(trainer.train_dataset), tokenizer.pad_token_id, given.save)


if __name__ == "__main__":
    main()
