"""What a stage's formula needs to be computed by hand, for the checks of ``ftk verify``: one text at a time, by a plain
forward of transformers' model, without padding, packing, patches of the loss, or anything else that the stage uses.

At the first step policy and reference are one model, of which many formulas are a constant. So the run makes two steps
at a learning rate of 0, between which noise is put into what learns; the loss of the second step is compared. A whole
check::

    from ftk_training.by_hand import Hand, compared

    def loss_by_hand(bench):
        return compared(bench, formula)

    def formula(hand: Hand) -> float:
        ratios = [hand.policy.total(row) - hand.reference.total(row) for row in hand.rows]
        return sum(...) / len(ratios)

Shapes: T tokens of a text, N trained ones, V words, H width of the hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ftk_training.checks import NotApplicable, Outcome
from ftk_training.collator import IGNORED, Collator

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_training.checks import Bench, Trained

NUM_ROWS = 3
NOISE, LEAST = 0.05, 0.1
"""Noise as a share of a weight's root mean square, and what is put into weights that are zero."""
Weights = dict[str, torch.Tensor]


def compared(bench: Bench, formula: Callable[[Hand], float], *, least: float = 1.0, **settings: Any) -> Outcome:
    """The loss of a step of moved weights, and ``formula`` of the same rows and weights.

    A difference is a share of the loss, or of ``least`` where that is more: a loss of preference may come near 0.
    Raises NotApplicable for what cannot be computed one text at a time.
    """
    num_rows, moving = len(bench.rows(NUM_ROWS)), _Moving()
    with moving.between_steps():
        trained = bench.train(
            steps=2, num_rows=NUM_ROWS, still=True, prepare=moving.begin,
            look=lambda one: _looked(one, moving, formula), learning_rate=0.0, per_device_train_batch_size=num_rows,
            gradient_accumulation_steps=1, packing=False, neat_packing=False, **settings,
        )  # fmt: skip
    found, wanted = trained.losses[-1], trained.seen
    share = abs(found - wanted) / max(abs(wanted), least)
    said = f"loss {found:.6f}, by hand {wanted:.6f}: {share:.1e} apart"
    return Outcome(share <= bench.tolerance, said, f"{bench.tolerance:.0e}")


def _looked(trained: Trained, moving: _Moving, formula: Callable[[Hand], float]) -> float:
    if trained.trainer is None or moving.num_steps < 2:
        raise NotApplicable("the run did not make two steps with an optimizer of torch")
    if getattr(moving.model.config, "output_router_logits", False):
        raise NotApplicable("the balance of the experts is of a whole batch, not of texts one at a time")
    return float(formula(Hand(trained, moving)))


@dataclass
class _Moving:
    """The weights that learn: as the run began, and with noise."""

    model: Any = None
    num_steps: int = 0
    start: Weights = field(default_factory=dict)
    moved: Weights = field(default_factory=dict)

    def begin(self, model: Any) -> None:
        self.model = model

    def learning(self) -> Weights:
        return {name: one for name, one in self.model.named_parameters() if one.requires_grad}

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        handle = register_optimizer_step_post_hook(lambda *_: self._step())
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def _step(self) -> None:
        self.num_steps += 1
        if self.num_steps > 1:
            return
        self.start = {name: one.detach().clone() for name, one in self.learning().items()}
        generator = torch.Generator().manual_seed(0)
        for weight in self.learning().values():
            size = float(weight.float().square().mean().sqrt()) * NOISE or LEAST
            weight += size * torch.randn(weight.shape, generator=generator).to(weight)
        self.moved = {name: one.detach().clone() for name, one in self.learning().items()}

    @contextmanager
    def put(self, weights: Weights) -> Iterator[Any]:
        with torch.no_grad():
            for name, one in self.learning().items():
                one.copy_(weights[name])
            yield self.model


class Hand:
    """What a formula reads. rows: those of the step, as the run's data has them.

    policy: the model of the second step. start: that of the first. reference: see :meth:`reference`.
    """

    def __init__(self, trained: Trained, moving: _Moving) -> None:
        self._trained, self._moving = trained, moving
        self.run: Run = trained.run
        self.rows: list[Mapping[str, Any]] = list(trained.run.rows("train"))
        self.policy = Asked(self.run, trained.trainer.args, lambda: moving.put(moving.moved))
        self.start = Asked(self.run, trained.trainer.args, lambda: moving.put(moving.start))

    @cached_property
    def reference(self) -> Asked:
        """What ``ref_model`` names; else the model as the run began, without its adapter where it has one."""
        known = self.run.plan.registry.options
        if "ref_model" in known and self.run.value("ref_model"):
            from ftk_training.reference import beside, placed

            names = ("ref_model", "ref_model_adapters", "ref_model_quantization_bit")
            name, adapters, bits = (self.run.value(key) for key in names)
            other = beside(self.run, "ref_model", name, adapters, bits).model(trainable=False)
            other = placed(self._trained.trainer, other)
            return Asked(self.run, self._trained.trainer.args, lambda: nullcontext(other))
        return Asked(self.run, self._trained.trainer.args, self._at_start)

    @contextmanager
    def _at_start(self) -> Iterator[Any]:
        with ExitStack() as stack:
            model = stack.enter_context(self._moving.put(self._moving.start))
            if getattr(model, "peft_config", None):
                stack.enter_context(model.disable_adapter())
            yield model


@dataclass(frozen=True)
class Asked:
    """A model that is asked about one text at a time: a mapping with ``input_ids``, ``labels``, and what a row has."""

    run: Run
    args: Any
    entered: Callable[[], Any]

    def _forward(self, text: Mapping[str, Any], names: Sequence[str] = (), **more: Any) -> tuple[Any, Weights]:
        batch = {"input_ids": torch.as_tensor(text["input_ids"])[None]}
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        if text.get("media"):
            batch = {name: one for name, one in Collator(media=self.run.media)([text]).items() if name != "labels"}
        kind = torch.bfloat16 if self.args.bf16 else torch.float16
        with self.entered() as model, torch.no_grad(), ExitStack() as stack:
            if self.args.bf16 or self.args.fp16:
                stack.enter_context(torch.autocast(model.device.type, kind))
            batch = {name: one.to(model.device) for name, one in batch.items()}
            heads = {name: one.detach().clone() for name, one in model.named_parameters() if name in names}
            return model(**batch, use_cache=False, **more), heads

    def logits(self, text: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, V) what the model says where a trained token comes next, and (N,) those tokens."""
        outputs, _ = self._forward(text)
        logits_TV = outputs.logits[0, -len(text["input_ids"]) :].float().cpu()
        labels_T = torch.as_tensor(text["labels"])[1:]
        return logits_TV[:-1][labels_T != IGNORED], labels_T[labels_T != IGNORED]

    def log_probs(self, text: Mapping[str, Any]) -> torch.Tensor:
        """(N,) log p of each trained token given all before it."""
        logits_NV, tokens_N = self.logits(text)
        return logits_NV.log_softmax(-1)[torch.arange(len(tokens_N)), tokens_N]

    def total(self, text: Mapping[str, Any]) -> float:
        """log p of the trained tokens of a text, each times its weight in the data."""
        return float((self.log_probs(text) * weights(text)).sum())

    def hidden(self, text: Mapping[str, Any], names: Sequence[str]) -> tuple[torch.Tensor, Weights]:
        """(T, H) the last hidden states, and copies of the model's weights of these names."""
        outputs, kept = self._forward(text, names, output_hidden_states=True)
        return outputs.hidden_states[-1][0, -len(text["input_ids"]) :].float(), kept


def side(row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """One text of a row that has several: with ``chosen_`` what those keys begin with."""
    return {key.removeprefix(prefix): one for key, one in row.items() if key.startswith(prefix)}


def weights(text: Mapping[str, Any]) -> torch.Tensor:
    """(N,) how much each trained token counts."""
    trained_T = torch.as_tensor(text["labels"]) != IGNORED
    trained_T[0] = False
    given = text.get("loss_weights")
    every_T = torch.ones(len(trained_T)) if given is None else torch.as_tensor(given).float()
    return every_T[trained_T]
