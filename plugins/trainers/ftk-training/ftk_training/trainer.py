"""transformers' Trainer with exact sums, cheap steps, and checkpoints that survive a kill.

Tensors: B rows, T tokens, K kept positions (see the collator).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ftk import CheckpointError, ConfigError

from ftk_training import checkpoints, evaluating, learning
from ftk_training.bad_loss import LossGuard
from ftk_training.counting import lengths_of, num_labels, num_targets, num_tokens
from ftk_training.found_out import check_best_metric
from ftk_training.options import TrainingOptions
from ftk_training.order import EpochOrder
from ftk_training.progress import Progress
from ftk_training.quick_imports import quick_imports
from ftk_training.streams import Handed, Stream, is_stream
from ftk_training.walking_once import parameters_of, walking_once, walks_once
from ftk_training.weighting import own_loss, weighs_losses, weighted_loss

with quick_imports():
    from transformers import Trainer
    from transformers.trainer_utils import EvalLoopOutput

if TYPE_CHECKING:
    from ftk.run import Run
    from torch import nn

    from ftk_training.generating import Generating
    from ftk_training.loops import Loop

Batch = dict[str, torch.Tensor]
Loss = Callable[["nn.Module", Batch], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
"""``loss(model, batch) -> (sum of the losses of all items, {metric: sum over items})``; items are tokens or pairs.

A metric that is a mean over other things than items is a pair: (sum, number of them); a difference of two such means is
both pairs in one, and is left out where one of them is of nothing."""
Count = Callable[[Batch], torch.Tensor | int]
"""``count(batch) -> number of items``."""


class ExactTrainer(Trainer):
    """A Trainer whose sums are exact: over gradient accumulation, over batches of an evaluation, and over a resume.

    loss, count: the loss of a stage that has its own, see :data:`Loss`; without them the model's.
    loop: makes the batches of a step out of what the loader brings, see :class:`ftk_training.loops.Loop`.
    configs: the model's config and its language model's, each with its ``use_cache`` outside of training.
    generating: lets the model answer in evaluations, see :mod:`ftk_training.generating`.
    """

    generating: Generating | None = None

    def __init__(
        self,
        run: Run,
        *,
        loss: Loss | None = None,
        count: Count | None = None,
        loop: Loop | None = None,
        **arguments: Any,
    ) -> None:
        self.run = run
        self.options = run.options(TrainingOptions)
        self.loss = loss
        self.count = count
        self.loop = loop
        self.progress = Progress()
        self.saving_after_epoch = False
        self.in_epoch = False
        self.order: EpochOrder | None = None
        self.configs = [(part, getattr(part, "use_cache", None)) for part in checkpoints.configs_of(arguments["model"])]
        super().__init__(**arguments)
        for (
            part,
            _,
        ) in self.configs:  # transformers' Trainer sets the whole model's, which its language model may not read
            part.use_cache = self.args.use_cache
        self.guard = LossGuard(self)
        # some models' own loss is not told how many tokens a step has
        self.sums_tokens = (
            loss is None
            and not self.model_accepts_loss_kwargs
            and self._loss_shifts_labels
            and self.label_smoother is None
            and self.args.n_gpu <= 1
        )
        if self.sums_tokens:
            self.loss_is_scaled_for_ga = True
        self.noted: tuple[Any, Any] | None = None
        self.stream = Stream(self, self.train_dataset) if is_stream(self.train_dataset) else None
        if loss is not None:
            self.model_accepts_loss_kwargs = True  # the step's items are counted and handed over
            self.loss_is_scaled_for_ga = True

    # Steps

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = self.run.optimizer(self.model)
            try:
                super().create_optimizer(model)
            except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as cause:
                said = " ".join(str(cause).split()) or type(cause).__name__
                raise ConfigError(f"{self.run.plan.where('optim')}: {said}") from cause
            learning.split_rates(self.run, self.model, self.optimizer)
        return self.optimizer

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if not walks_once(model) or self._has_mixed_mesh_grads(model):
            return super()._clip_grad_norm(model)
        return self.accelerator.clip_grad_norm_(parameters_of(model), self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm of all gradients; the optimizer tells it when it has used each up at once."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        if getattr(optimizer, "layerwise", False):
            return self.guard.gradients(model, optimizer.take_gradient_norm().item())
        return self.guard.gradients(model, super()._get_grad_norm(model, grad_norm=grad_norm))

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except ValueError as cause:  # torch's, for groups of other sizes
            raise CheckpointError(
                f"{checkpoint}: was made by another optimizer, or with other weights learning: {cause}. Resume with "
                "the settings of that run, or start into another output_dir"
            ) from cause

    def show_result(self) -> None:
        """Put the weights that are the result into the model: schedule-free optimizers train others beside them."""
        if hasattr(self.optimizer, "eval"):
            self.optimizer.eval()

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        self.progress.num_tokens += num_tokens(inputs)
        self.progress.num_trained += num_labels(inputs)
        self.guard.begins(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        return self.guard.ends(model, loss, num_items_in_batch)

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean loss over ``num_items_in_batch`` items, the whole step's, or over this batch's own without it."""
        found = self._loss_of(model, inputs, return_outputs, num_items_in_batch)
        if return_outputs or not torch.is_grad_enabled():
            return found
        instead = self.guard.seen(model, found, num_items_in_batch)
        if instead is None and self.noted is not None:
            self.progress.add(*self.noted)
        self.noted = None
        return found if instead is None else instead

    def _loss_of(self, model: nn.Module, inputs: Batch, return_outputs: bool, num_items_in_batch: Any) -> Any:
        if self.loss is None or self.count is None:
            if "loss_weights" in inputs or (self.sums_tokens and "labels" in inputs):
                loss, outputs = weighted_loss(self, model, dict(inputs), num_items_in_batch)
                return (loss, outputs) if return_outputs else loss
            if self.label_smoother is not None and weighs_losses(model):
                share = self.args.label_smoothing_factor
                loss, outputs = own_loss(self, model, inputs, num_items_in_batch, label_smoothing=share)
                return (loss, outputs) if return_outputs else loss
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        total, sums = self.loss(model, inputs)
        if num_items_in_batch is None:
            loss = total / self.count(inputs)
        else:
            loss = total / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes  # which averages gradients over processes
            self.noted = (sums, self.count(inputs))
        return (loss, dict(sums)) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Any:
        count = self.count or (num_targets if self.sums_tokens else None)
        if count is None:
            items = super()._get_num_items_in_batch(batch_samples, device)
            return items.clamp(min=1) if isinstance(items, torch.Tensor) else items
        items = torch.as_tensor(sum(count(batch) for batch in batch_samples), device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            items = self.accelerator.gather(items.reshape(1)).sum()
        return items.clamp(min=1)

    @cached_property
    def _flops_per_token(self) -> float:
        return 6.0 * sum(parameter.numel() for name, parameter in self.model.named_parameters() if "embed" not in name)

    def floating_point_ops(self, inputs: Batch) -> float:
        """transformers' estimate, 6 per parameter and token, without walking over all modules in every step."""
        return self._flops_per_token * sum(ids.numel() for name, ids in inputs.items() if name.endswith("input_ids"))

    # Rows

    def get_train_dataloader(self) -> Any:
        if self.stream is None:
            return super().get_train_dataloader()
        return self._get_dataloader(
            Handed(), "Training", self._train_batch_size, sampler_fn=lambda _: self.stream, is_training=True
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        if self.stream is not None:
            self.stream.step_begins()
        if self.loop is not None:
            epoch_iterator = iter(self.loop.step(list(islice(epoch_iterator, num_batches))))
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        if strategy not in ("random", "group_by_length") or not hasattr(rows, "__len__"):
            return super()._get_train_sampler(rows)
        lengths = lengths_of(rows) if strategy == "group_by_length" else None
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        self.order = EpochOrder(len(rows), seed, lengths=lengths, batch_size=batch_size)
        return self.order

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        if self.order is not None:
            self.order.set_epoch(named["epoch"])
        self.guard.epoch_begins(
            named["steps_trained_in_current_epoch"] if named["epoch"] == named["epochs_trained"] else 0
        )
        if self.stream is not None:
            self.stream.skip(named["steps_trained_in_current_epoch"])
        if (
            self.state.global_step >= self.state.max_steps
        ):  # resumed behind the last step; transformers would take one more
            self.control.should_training_stop = True
            return
        with walking_once(self, named["model"]):
            super()._run_epoch(*arguments, **named)

    # Evaluation

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean loss over all items of all processes, whatever the batch size, and what the stage's loss reports.

        Keeps no predictions, so memory does not grow. Leaves the random state as it was, so that evaluating more
        often does not change the training.
        """
        return evaluating.evaluate(self, dataloader, metric_key_prefix)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        check_best_metric(self.run, self.args.metric_for_best_model, metrics)
        return bool(super()._determine_best_metric(metrics, trial))

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save now, or at the end of the epoch when this was its last step.

        What happens at the end of an epoch (evaluation, log) then stands in the checkpoint, and is not done again or
        left out after a resume.
        """
        if self.in_epoch and float(self.state.epoch or 0).is_integer():
            self.saving_after_epoch = True
            return
        self.guard.look()
        self.store_flos()
        self.show_result()
        checkpoints.save(self)

    def _finalize_training(self, *arguments: Any, **named: Any) -> Any:
        """transformers would remove the newest checkpoint here, when one is the limit and another is the best: before
        the result is saved, so that a kill costs all steps since the best one."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*arguments, **named)
        finally:
            self.args.save_total_limit = limit

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights and tokenizer; not the pickled arguments that transformers puts beside them."""
        checkpoints.save_weights(self, output_dir or self.args.output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        form = learning.of(self.run).form
        if form is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            form.restore(self.accelerator.unwrap_model(self.model), Path(resume_from_checkpoint))
        checkpoints.restore_companions(self, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if learning.of(self.run).form is None:
            super()._load_best_model()
            checkpoints.restore_companions(self, Path(str(self.state.best_model_checkpoint)))
        else:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """ftk writes its own."""

    # Log

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self.guard.look()
            logs |= self.progress.since_log(time.monotonic(), self.accelerator)
        super().log(logs, start_time)
