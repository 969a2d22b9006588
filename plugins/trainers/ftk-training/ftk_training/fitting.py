"""The one training function of all stages."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError, DataError, FtkError, Metrics, rundir

from ftk_training import checkpoints, generating, interrupting, result
from ftk_training.arguments import is_reentrant, make_arguments, wants_checkpointing
from ftk_training.asking_once import asking_once
from ftk_training.checks import note_trainer
from ftk_training.collator import Collator
from ftk_training.kept_logits import can_keep_logits
from ftk_training.neighbours import refuse_leaks
from ftk_training.one_row import is_flat
from ftk_training.options import TrainingOptions
from ftk_training.parts import towers_of
from ftk_training.quick_imports import quick_imports
from ftk_training.reporting import Reporter
from ftk_training.trainer import Count, ExactTrainer, Loss

with quick_imports():
    from transformers import EarlyStoppingCallback, PrinterCallback, enable_full_determinism, set_seed
    from transformers.trainer_callback import ProgressCallback
    from transformers.utils.logging import disable_progress_bar

if TYPE_CHECKING:
    from ftk.run import Run
    from transformers import TrainingArguments

    from ftk_training.loops import Loop

log = logging.getLogger("ftk.training")
Collate = Callable[[list[Any]], dict[str, torch.Tensor]]
Prepare = Callable[[Any], Any]
"""``prepare(model) -> model``: what a stage adds to the run's model before the trainer gets it."""


def fit(
    run: Run,
    *,
    collate: Collate | None = None,
    loss: Loss | None = None,
    count: Count | None = None,
    loop: Loop | None = None,
    prepare: Prepare | None = None,
) -> Metrics:
    """Train and evaluate as the run's options say, save the result, and return its metrics.

    collate: rows → batch; unset pads ``input_ids`` and ``labels`` (:class:`ftk_training.collator.Collator`).
    loss, count: for a stage whose loss is not the model's own, see :data:`ftk_training.trainer.Loss`; the loss of a
        step is the sum over all its items, on all devices and in all accumulated batches, divided by their number.
        A loss that has a method ``begin(trainer)`` has it called when the trainer is made, before anything is restored.
    prepare: see :data:`Prepare`; a value head is put on there.
    loop: for a stage whose batches are made while it trains, see :class:`ftk_training.loops.Loop`.
    Goes on from the newest complete checkpoint when the run continues an interrupted one.
    Raises FtkError for what the user can mend.
    """
    options = run.options(TrainingOptions)
    answers = generating.wanted(run)
    if options.do_predict and not (options.do_train or options.do_eval):
        return generating.predict_alone(run)
    if not (options.do_train or options.do_eval):
        raise ConfigError(f"{run.plan.config}: do_train and do_eval are both false, so there is nothing to do")
    if collate is not None and options.padding_free:
        raise ConfigError(
            f"{run.plan.where('padding_free')}: has no effect, because this stage makes its own batches. Take it out"
        )
    with _libraries_apart():
        return _fitted(run, options, collate, loss, count, loop, prepare, answers=answers)


def _fitted(
    run: Run,
    options: TrainingOptions,
    collate: Collate | None,
    loss: Loss | None,
    count: Count | None,
    loop: Loop | None,
    prepare: Prepare | None,
    *,
    answers: bool,
) -> Metrics:
    tokenizer = run.tokenizer
    train, evaluation = _rows(run, options)
    arguments = make_arguments(run)
    if loop is not None:
        train, evaluation = loop.rows(arguments, train, evaluation)
    disable_progress_bar()  # transformers draws one for loading and one for writing
    (enable_full_determinism if options.full_determinism else set_seed)(run.seed)
    model = run.model(trainable=options.do_train)
    model = prepare(model) if prepare else model
    _let_through(model, options)
    result.name_template(run, tokenizer)
    trainer = ExactTrainer(
        run,
        loss=loss,
        count=count,
        loop=loop,
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=run.processor or tokenizer,
        data_collator=collate or Collator(),
    )
    note_trainer(run, trainer)
    if collate is None:
        trainer.data_collator = _collator(trainer, tokenizer)
        refuse_leaks(trainer)
    if answers:
        trainer.generating = generating.Generating(trainer)
    for part in dict.fromkeys((loss, loop)):  # which one object may be
        if hasattr(part, "begin"):
            part.begin(trainer)
    with _one_line():
        return _train_and_evaluate(run, trainer)


@contextmanager
def _libraries_apart() -> Iterator[None]:
    """Spare the garbage collector what has been imported: accelerate collects everything before it trains, and going
    through all of the libraries takes longer than reading the rows of a data set."""
    already = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not already:
            gc.unfreeze()


@contextmanager
def _one_line() -> Iterator[None]:
    """A process that loads batches hands its errors over with the traceback; the user is told what it ends with."""
    try:
        yield
    except FtkError as error:
        said = str(error).strip()
        if "\nOriginal Traceback" not in said:
            raise
        raise type(error)(said.rpartition("\n")[2].partition(": ")[2]) from error


def _rows(run: Run, options: TrainingOptions) -> tuple[Any, Any]:
    train = run.rows("train") if options.do_train else None
    if train is not None and hasattr(train, "__len__") and len(train) == 0:
        raise DataError(f"{run.plan.config}: dataset: no row is left to train on; data_report.json says why rows went")
    if not (options.do_eval or options.eval_strategy != "no"):
        return train, None
    evaluation = run.rows("eval")
    if hasattr(evaluation, "__len__") and len(evaluation) == 0:
        raise ConfigError(f"{run.plan.config}: do_eval: there are no rows to evaluate on. Set eval_dataset or val_size")
    return train, evaluation


def _let_through(model: Any, options: TrainingOptions) -> None:
    """Reentrant checkpointing loses all gradients when what enters the first block needs none (frozen embeddings).

    transformers sees to the embeddings of words, and not of every tower's pixels and sounds.
    """
    if options.do_train and wants_checkpointing(options) and is_reentrant(options):
        embeddings = model.get_input_embeddings()
        if not any(parameter.requires_grad for parameter in embeddings.parameters()):
            model.enable_input_require_grads()
        for tower in towers_of(model.get_base_model() if hasattr(model, "get_base_model") else model):
            if any(parameter.requires_grad for parameter in tower.parameters()):
                tower.register_forward_pre_hook(_let_gradients_through, with_kwargs=True)


def _let_gradients_through(tower: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    for one in (*arguments, *named.values()):
        if torch.is_grad_enabled() and isinstance(one, torch.Tensor) and one.is_floating_point() and one.is_leaf:
            one.requires_grad_(True)


def _collator(trainer: ExactTrainer, tokenizer: Any) -> Collator:
    media = trainer.run.media
    if media is not None and trainer.args.n_gpu > 1:
        raise ConfigError(
            f"{trainer.run.plan.config}: a batch with media cannot be split over the GPUs of one process. "
            "Start one for each GPU (torchrun), or show it one (CUDA_VISIBLE_DEVICES=0)"
        )
    blanks: dict[str, Any] = {}
    for blank in getattr(media, "blanks", ()) if trainer.args.world_size > 1 else ():
        ids = tokenizer("".join(media.expand([blank])), add_special_tokens=False)["input_ids"]
        blanks[blank.kind] = {"input_ids": ids, "media": (blank,)}
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    multiple = 1 if trainer.args.device.type == "cpu" else 8
    kept_logits = can_keep_logits(trainer)
    return Collator(
        pad_id=pad_id or 0,
        multiple=multiple,
        kept_logits=kept_logits,
        media=media,
        blanks=blanks,
        flat=is_flat(trainer),
    )


def _train_and_evaluate(run: Run, trainer: ExactTrainer) -> Metrics:
    options = trainer.options
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    resumed = _resume_point(run, trainer.args) if options.do_train else None
    reporter = Reporter(trainer, run, resumed)
    trainer.add_callback(reporter)
    if options.early_stopping_steps:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=options.early_stopping_steps))
    metrics: dict[str, float] = {}
    try:
        if options.do_train:
            metrics |= _train(trainer, resumed)
            result.save(run, trainer)
        else:
            run.record(result="none")
        if trainer.eval_dataset is not None:
            metrics |= reporter.last_evaluation() or trainer.evaluate()
        if options.do_predict and trainer.generating is not None:
            metrics |= trainer.generating.predict()
    finally:
        reporter.close()
        if trainer.stream is not None:
            trainer.stream.rows.close()
    if trainer.is_world_process_zero():
        result.report(run, trainer, metrics)
    return metrics


def _resume_point(run: Run, args: TrainingArguments) -> Path | None:
    if args.should_save:
        rundir.clean_leftovers(run.output_dir)
    resumed = checkpoints.to_resume(run)
    if resumed is not None:
        args.eval_on_start = False
    return resumed


def _train(trainer: ExactTrainer, resumed: Path | None) -> dict[str, float]:
    """Train and return the metrics of the whole run, with what earlier processes of it did."""
    with interrupting.of(trainer.run).saving(), asking_once():
        output = trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if not trainer.args.load_best_model_at_end:  # that one was saved as it is
        trainer.show_result()
    if trainer.stream is not None:
        trainer.stream.publish()
    seconds = trainer.progress.total_seconds()
    steps = trainer.state.global_step
    metrics = {name: value for name, value in output.metrics.items() if not name.endswith("_per_second")}
    num_tokens = int(trainer.progress.totals(trainer.accelerator)["num_tokens"])
    return {
        **metrics,
        "train_loss": output.training_loss,
        "train_runtime": round(seconds, 4),
        "train_steps": steps,
        "train_steps_per_second": round(steps / max(seconds, 1e-9), 3),
        "train_tokens_per_second": round(num_tokens / max(seconds, 1e-9), 1),
        "num_input_tokens_seen": num_tokens,
        **({"skipped_batches": trainer.guard.num_skipped} if trainer.guard.num_skipped else {}),
        "epoch": trainer.state.epoch or 0.0,
    }
