"""A batch as a file that a person can read: which rows, their text, what of it is trained, and the loss of each.

Tensors: B rows, T tokens.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ftk import CheckpointError, rundir
from torch.nn import functional

if TYPE_CHECKING:
    from ftk_training.trainer import Batch, ExactTrainer

log = logging.getLogger("ftk.training")

IGNORED = -100
NO_POSITION = ("logits_to_keep", "shift_labels", "labels", "loss_weights")


def write(trainer: ExactTrainer, batch: Batch, place: tuple[int, int, int], why: str) -> Path | None:
    """Write a batch into the run directory as ``bad_batch-STEP-NUMBER.json``; None when it cannot be written.

    place: the optimizer step (from 1), which of its batches (from 0), and how many batches of the epoch were before it.
    """
    step, number, before = place
    process = f"-{trainer.args.process_index}" if trainer.args.world_size > 1 else ""
    path = trainer.run.output_dir / f"bad_batch-{step}-{number}{process}.json"
    content = {
        "step": step,
        "batch": number,
        "process": trainer.args.process_index,
        "why": why,
        "learning_rate": _learning_rate(trainer),
        "rows": described(trainer, batch, before),
    }
    try:
        rundir.write_text(path, json.dumps(rundir.plain(content), indent=1, ensure_ascii=False) + "\n")
    except CheckpointError as error:
        log.warning("%s", error)
        return None
    from ftk_training.result import note_files

    note_files(trainer.run, [path.name])
    return path


def described(trainer: ExactTrainer, batch: Batch, before: int) -> list[dict[str, Any]]:
    """What is in the rows of a batch. A row that has several sequences (a pair) has each under its name.

    ``row`` counts the rows that are trained, in the order of the data, from 0; streamed ones in the order of training.
    ``documents`` are there where several share a row. Losses are null where they cannot be computed row by row.
    """
    names = [name for name in batch if name.endswith("input_ids")]
    if not names:
        return [{name: _shape(value) for name, value in batch.items()}]
    numbers = row_numbers(trainer, len(batch[names[0]]), before)
    pad_id = getattr(trainer.data_collator, "pad_id", 0)
    rows = []
    for index in range(len(batch[names[0]])):
        row: dict[str, Any] = {"row": numbers[index] if index < len(numbers) else None}
        row["loss"], losses_T = _loss(trainer, batch, index)
        for name in names:
            prefix = name.removesuffix("input_ids")
            parts = [_part(trainer, *one) for one in _documents(batch, prefix, index, losses_T, pad_id)]
            row |= {f"{prefix}{key}": value for key, value in parts[0].items()} if len(parts) == 1 else {
                f"{prefix}documents": parts
            }  # fmt: skip
        rows.append(row)
    return rows


def row_numbers(trainer: ExactTrainer, size: int, before: int) -> list[int]:
    """Which rows the batch after ``before`` others of the epoch has; none where that is not known."""
    if trainer.loop is not None:
        return []
    if trainer.stream is not None:
        step_rows = trainer.stream.num_rows(trainer.state.global_step)
        accumulated = trainer.args.gradient_accumulation_steps
        first = step_rows + (before % accumulated) * size * trainer.args.world_size + trainer.args.process_index * size
        return list(range(first, first + size))
    if not hasattr(trainer.train_dataset, "__len__"):
        return []
    order = list(trainer.order) if trainer.order is not None else list(range(len(trainer.train_dataset)))
    per_batch = trainer.args.train_batch_size
    first = (before * trainer.args.world_size + trainer.args.process_index) * per_batch
    return [int(order[index % len(order)]) for index in range(first, first + per_batch)]


def _documents(
    batch: Batch, prefix: str, index: int, losses_T: list[float | None] | None, pad_id: int
) -> Iterator[tuple[list[int], list[int], list[float | None] | None]]:
    """Ids, labels and losses of the documents of a row, without padding."""
    ids = batch[f"{prefix}input_ids"][index].tolist()
    labels = batch[f"{prefix}labels"][index].tolist() if f"{prefix}labels" in batch else [IGNORED] * len(ids)
    losses = losses_T if losses_T and not prefix else None
    mask, positions = batch.get(f"{prefix}attention_mask"), batch.get(f"{prefix}position_ids")
    if mask is not None and mask.dim() == 2:
        kept = [place for place, one in enumerate(mask[index].tolist()) if one]
        edges = [(kept[0], kept[-1] + 1)] if kept else [(0, 0)]
    elif positions is not None and positions.dim() == 2:
        starts = [place for place, one in enumerate(positions[index].tolist()) if one == 0] or [0]
        edges = [
            (first, last)
            for first, last in zip(starts, [*starts[1:], len(ids)], strict=True)
            if set(ids[first:last]) != {pad_id} or any(label != IGNORED for label in labels[first:last])
        ]
    else:
        edges = [(0, len(ids))]
    for first, last in edges:
        yield ids[first:last], labels[first:last], losses[first:last] if losses else None


def _part(
    trainer: ExactTrainer, ids: list[int], labels: list[int], losses: list[float | None] | None
) -> dict[str, Any]:
    trained = [label for label in labels if label != IGNORED]
    part: dict[str, Any] = {
        "text": _decoded(trainer, ids), "trained": _decoded(trainer, trained), "num_trained": len(trained),
        "input_ids": ids,
    }  # fmt: skip
    found = [one for one in losses or () if one is not None]
    if found:
        part["token_loss"] = sum(found) / len(found)
    return part


def _decoded(trainer: ExactTrainer, ids: list[int]) -> str:
    return str(trainer.run.tokenizer.decode(ids)) if ids else ""


@torch.no_grad()
def _loss(trainer: ExactTrainer, batch: Batch, index: int) -> tuple[float | None, list[float | None] | None]:
    """The loss of one row by itself, with the weights as they are now, and that of each of its tokens."""
    model = trainer.model
    random_state, was_training = torch.get_rng_state(), model.training
    model.eval()
    try:
        row = _row_of(batch, index)
        if trainer.loss is not None and trainer.count is not None:
            total, _ = trainer.loss(model, dict(row))
            return float(total) / max(float(trainer.count(row)), 1.0), None
        labels_T = row["labels"][0]
        logits_TV = model(**{name: value for name, value in row.items() if name not in NO_POSITION})["logits"][0]
        surprise_T = functional.cross_entropy(logits_TV[:-1].float(), labels_T[1:], reduction="none")
        trained_T = labels_T[1:] != IGNORED
        losses = [None, *(float(one) if on else None for one, on in zip(surprise_T, trained_T, strict=True))]
        return float(surprise_T.sum() / trained_T.sum().clamp(min=1)), losses
    except Exception as error:  # whatever a broken model does, the batch is written down without losses
        log.debug("the loss of row %d cannot be computed: %s", index, error)
        return None, None
    finally:
        model.train(was_training)
        torch.set_rng_state(random_state)


def _row_of(batch: Batch, index: int) -> Batch:
    """One row of a batch whose tensors have a row each. Raises ValueError for others."""
    size = len(next(value for name, value in batch.items() if name.endswith("input_ids")))
    row = {}
    for name, value in batch.items():
        if name == "logits_to_keep":
            continue
        if not isinstance(value, torch.Tensor) or not value.dim() or len(value) != size:
            if size == 1:
                row[name] = value
                continue
            raise ValueError(f"{name} has no row for each")
        row[name] = value[index : index + 1]
    return row


def _shape(value: Any) -> Any:
    return list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__


def _learning_rate(trainer: ExactTrainer) -> float | None:
    groups = getattr(trainer.optimizer, "param_groups", None) or [{}]
    rate: Mapping[str, Any] = groups[0]
    return float(rate["lr"]) if "lr" in rate else None
