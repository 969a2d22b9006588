"""LLaMA-Factory's rows for ``stage: sft``, in an environment with ``llamafactory``: what its workflow calls before it
loads the model. Packing is its ``neat_packing``, which isolates the documents of a row, as ftk's packing does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
from outcome import asked, tell, timed


def pairs(rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for batch in rows.select_columns(["input_ids", "labels"]).with_format("numpy").iter(batch_size=1000):
        yield from zip(batch["input_ids"], batch["labels"], strict=True)


def main() -> None:
    given = asked()
    model_args, data_args, training_args, _, _ = get_train_args(
        {
            "stage": "sft", "do_train": True, "finetuning_type": "lora", "model_name_or_path": given.model,
            "template": "chatml", "dataset_dir": given.data, "dataset": given.dataset, "cutoff_len": given.cutoff,
            "neat_packing": given.packing, "preprocessing_num_workers": given.workers, "overwrite_cache": True,
            "output_dir": str(Path(given.out) / "llamafactory"), "report_to": "none", "bf16": False,
        }
    )  # fmt: skip
    loaded = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_args)
    with timed():
        rows = get_dataset(template, model_args, data_args, training_args, "sft", **loaded)["train_dataset"]
    tell(pairs(rows), loaded["tokenizer"].pad_token_id, given.save)


if __name__ == "__main__":
    main()
