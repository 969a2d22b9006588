"""The loss of rows from logits alone, one text at a time: no padding, no packing, no patch, no ``labels``.

Shapes: T tokens of a text, V words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ftk_training.checks import NotApplicable, Outcome, Trained, measured
from ftk_training.collator import IGNORED, Collator

from ftk_verify.bench import UNPACKED, Bench
from ftk_verify.sums import refuse_prompts

if TYPE_CHECKING:
    from ftk.run import Run

KEYS = ("input_ids", "labels", "loss_weights", "media")


def loss_is_the_formula(bench: Bench) -> Outcome:
    """The loss of the first step, at a learning rate of 0, against the mean over all trained tokens by hand."""
    refuse_prompts(bench)
    num_rows = min(3, len(bench.rows(3)))
    trained = bench.train(
        num_rows=3, still=True, look=by_hand, learning_rate=0.0, per_device_train_batch_size=num_rows,
        gradient_accumulation_steps=1, **UNPACKED,
    )  # fmt: skip
    if not trained.losses:
        raise NotApplicable("the stage reports no loss")
    return measured("loss", trained.losses[0], trained.seen, bench.tolerance)


def by_hand(trained: Trained) -> float:
    """-log p of each trained token, times its weight, smoothed if the run says so, over the number of tokens.

    A mixture of experts whose config asks for it adds the balance of its routers, as transformers' does.
    Raises NotApplicable for a stage with a loss of its own.
    """
    trainer = trained.trainer
    if trainer is None:
        raise NotApplicable("the stage does not train with ftk_training, so its rows and model are unknown")
    if trainer.loss is not None:
        name = getattr(trained.run.plan.one("trainer"), "name", "")
        raise NotApplicable(f"stage {name} has a loss of its own here, whose formula only its plugin knows")
    model, smoothing = trained.run.model(trainable=True), trainer.args.label_smoothing_factor
    mixed = trainer.args.bf16 or trainer.args.fp16
    kind = torch.bfloat16 if trainer.args.bf16 else torch.float16
    total, num_tokens = 0.0, 0
    for row in trained.run.rows("train"):
        for text in texts_of(row):
            with torch.no_grad(), torch.autocast(model.device.type, kind) if mixed else nullcontext():
                found, count = _of_text(trained.run, model, text, smoothing)
            total, num_tokens = total + found, num_tokens + count
    return total / num_tokens


def _of_text(run: Run, model: Any, text: Mapping[str, Any], smoothing: float) -> tuple[float, int]:
    batch = {name: one.to(model.device) for name, one in shown_batch(run, text).items()}
    outputs = model(**batch, use_cache=False)
    logits_TV = outputs.logits[0, -batch["input_ids"].shape[1] :].float()
    labels_T = torch.as_tensor(np.array(text["labels"]), device=logits_TV.device)
    places_T = (labels_T[1:] != IGNORED).nonzero()[:, 0]
    surprise_TV = -logits_TV[places_T].log_softmax(-1)
    following_T = labels_T[1:][places_T]
    losses_T = (1 - smoothing) * surprise_TV.gather(1, following_T[:, None])[:, 0] + smoothing * surprise_TV.mean(-1)
    if "loss_weights" in text:
        losses_T = losses_T * torch.as_tensor(text["loss_weights"], device=losses_T.device)[1:][places_T]
    total = float(losses_T.sum())
    if getattr(outputs, "aux_loss", None) is not None and getattr(model.config, "output_router_logits", False):
        total += float(model.config.router_aux_loss_coef * outputs.aux_loss) * len(places_T)
    return total, len(places_T)


def texts_of(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The texts of a row: the row itself, or the documents that were packed into it."""
    starts = [0]
    if "position_ids" in row:
        starts = np.flatnonzero(np.asarray(row["position_ids"]) == 0).tolist()
    for first, last in zip(starts, [*starts[1:], len(row["input_ids"])], strict=True):
        yield {key: value if key == "media" else value[first:last] for key, value in row.items() if key in KEYS}


def shown_batch(run: Run, row: Mapping[str, Any], most: int | None = None) -> dict[str, torch.Tensor]:
    """What a model is shown of one row: its tokens and media. Of a pair it is the chosen one, of a pack of pairs the
    first one's."""
    row = row.get("pairs", [row])[0]
    prefix = "" if "input_ids" in row else "chosen_"
    media = row.get(f"{prefix}media", ())
    ids_T = np.array(row[f"{prefix}input_ids"])[: None if media else most]
    if not media:
        return {"input_ids": torch.tensor(ids_T)[None], "attention_mask": torch.ones(1, len(ids_T), dtype=torch.long)}
    made = Collator(media=run.media)([{"input_ids": ids_T, "labels": ids_T, "media": media}])
    return {name: one for name, one in made.items() if name != "labels"}
