"""``ftk verify`` and ``ftk run --rehearse``: what would go wrong after days is found in minutes.

The checks of ``ftk verify`` are features of kind ``check`` (:class:`ftk_training.checks.Check`); other plugins declare
theirs with the hook ``ftk_checks``.
"""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_training.checks import Check

ANSWERS = ("model_loader", "quantizer", "model_patch", "adapter", "template", "media", "engine")


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "verify",
        target="ftk_verify.verify_command:verify",
        uses=ANSWERS,
        summary="Check on the run's own model and data that training does what it should.",
    )
    yield ftk.Command(
        "rehearse",
        target="ftk_verify.rehearse_command:rehearse",
        uses=ANSWERS,
        run_flag=True,
        summary="Try the whole run in a minute, with a small random model of the same architecture.",
    )


@ftk.hookimpl
def ftk_checks() -> Iterator[Check]:
    yield Check(
        "accumulation",
        target="ftk_verify.sums:accumulation_equals_batch",
        summary="A batch and the same rows accumulated give the same loss and gradients",
        mend="The stage averages micro-batches. Set gradient_accumulation_steps: 1, and tell who made its plugin",
    )
    yield Check(
        "packing",
        target="ftk_verify.sums:packed_equals_unpacked",
        summary="Rows packed together give the loss and gradients of the rows alone",
        mend="Texts of a row see each other. Take packing and padding_free out, or take another flash_attn",
    )
    yield Check(
        "resume",
        target="ftk_verify.resuming:resumed_equals_uninterrupted",
        summary="A run that was interrupted and resumed ends where one that was not does",
        mend="Something is missing in the checkpoints. Take another optim or take out the last patch that was added",
    )
    yield Check(
        "merged",
        target="ftk_verify.merging:loaded_equals_trained",
        summary="The result, loaded again and merged, says what the trained model said",
        mend="Answer with the adapter beside its base model, or train on a base that is not quantised",
    )
    yield Check(
        "loss",
        target="ftk_verify.by_hand:loss_is_the_formula",
        summary="The loss of rows is their cross-entropy, computed by hand",
        mend="A patch changes the loss. Take out those that ftk run --dry-run lists, one by one",
    )
    yield Check(
        "inference",
        target="ftk_verify.inference:trained_text_is_inferred_text",
        rehearsed=True,
        summary="What is trained is what the engine will show the model, and it stops where rows end",
        mend="ftk data preview shows the rows; ftk template check compares the template with the model's own",
    )
