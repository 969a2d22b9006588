"""The model card of a result: what it is, how it was made, how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ftk import rundir

if TYPE_CHECKING:
    from ftk.run import Run

LIBRARIES = ("ftk-kernel", "torch", "transformers", "peft", "accelerate")
SHOWN = ("per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type",
         "num_train_epochs", "max_steps", "warmup_steps", "optim", "cutoff_len", "seed")  # fmt: skip

LOAD_ADAPTER = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")"""

LOAD_MODEL = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")"""

LOAD_SEEING_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForMultimodalLM, AutoProcessor

model = PeftModel.from_pretrained(AutoModelForMultimodalLM.from_pretrained("BASE"), "FOLDER")
processor = AutoProcessor.from_pretrained("FOLDER")"""

LOAD_SEEING_MODEL = """\
from transformers import AutoModelForMultimodalLM, AutoProcessor

model = AutoModelForMultimodalLM.from_pretrained("FOLDER")
processor = AutoProcessor.from_pretrained("FOLDER")"""


def text(run: Run, metrics: Mapping[str, float], lines: Sequence[Mapping[str, Any]], use: str) -> str:
    """The card as Markdown with the front matter that the Hugging Face Hub reads. use: what is done with the result."""
    plan = run.plan
    adapter = plan.one("adapter")
    saves = getattr(adapter, "saves", "model")
    base = str(run.value("model_name_or_path"))
    method = f"{run.value('stage') or 'sft'} with {adapter.name if adapter else 'full'} fine-tuning"
    datasets = [one.entry.name for one in plan.datasets.get("train", ())]
    losses = [line["loss"] for line in lines if "loss" in line]
    options = rundir.resolved_options(plan)
    rows = [("Base model", f"`{base}`"), ("Method", method), ("Data", ", ".join(f"`{name}`" for name in datasets))]
    if losses:
        rows.append(("Training loss", f"{losses[0]:.4f} at first, {losses[-1]:.4f} at last"))
    if "eval_loss" in metrics:
        rows.append(("Evaluation loss", f"{metrics['eval_loss']:.4f}"))
    rows += [(f"`{key}`", f"{options[key]}") for key in SHOWN if key in options]
    rows.append(("Made with", ", ".join(_versions())))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    plain, seeing = (LOAD_ADAPTER, LOAD_SEEING_ADAPTER) if saves == "adapter" else (LOAD_MODEL, LOAD_SEEING_MODEL)
    load = plain if run.processor is None else seeing.replace("BASE", base)
    load = load.replace("FOLDER", str(run.output_dir))
    library = "peft" if saves == "adapter" else "transformers"
    front = [f"library_name: {library}", "tags: [ftk]"]
    if "://" not in base and not base.startswith((".", "/", "~")):
        front.insert(0, f"base_model: {base}")
    what, _, command = use.partition(": ")
    return (
        "---\n" + "\n".join(front) + f"\n---\n\n# {run.output_dir.name}\n\n"
        f"`{base}` fine-tuned with ftk ({method}).\n\n| | |\n|---|---|\n{table}\n\n"
        "All options, data fingerprints and versions are in `run.json`; the loss of each step is in "
        "`trainer_log.jsonl`.\n\n## Use\n\n"
        f"{what.capitalize()}:\n\n    {command}\n\nOr, in Python:\n\n```python\n{load}\n```\n"
    )


def _versions() -> list[str]:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue  # peft is not needed by every run
    return found
