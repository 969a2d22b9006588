"""The memory of one training step, measured on tensors without contents: torch's FakeTensorMode.

The architecture of the run's model is built from its config, with its patches and its adapter; one forward and backward
pass of the longest rows and one step of the run's own optimizer go through it. Nothing is looked up by the name of a
method: what an adapter freezes is frozen, what an optimizer allocates is counted.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ftk import ConfigError, FtkError
from ftk.plan import Plan
from ftk.run import Run
from ftk_training import TrainingOptions
from ftk_training.arguments import make_arguments, wants_checkpointing
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from ftk_plan.changing import WEIGHTLESS, changed, value
from ftk_plan.live import Live, num_bytes
from ftk_plan.rows import Rows, Shape

log = logging.getLogger("ftk.plan")

SCALES = 0.5
"""Bits per quantised weight for scales and zero points: 32 bits for each group of 64."""


@dataclass
class Memory:
    """Bytes. activations: all that is alive at the peak beside the rest. notes: what was assumed."""

    num_parameters: int = 0
    num_trainable: int = 0
    weights: int = 0
    reference: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    batch: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.weights + self.reference + self.gradients + self.optimizer + self.activations


def estimate(plan: Plan, words: Sequence[str], rows: Rows) -> Memory:
    """Raises FtkError when the model's architecture cannot be built from its config."""
    found = Memory()
    with tempfile.TemporaryDirectory(prefix="ftk-plan-") as folder, _quiet():
        empty = changed(plan, words, {**WEIGHTLESS, "output_dir": str(Path(folder) / "out")})
        run = Run(empty)
        run.tokens  # noqa: B018 - read with real tensors
        config = run.model_config
        if config is None:
            raise ConfigError(f"{plan.where('model_name_or_path')}: its loader does not tell the model's config")
        arguments = make_arguments(run)
        with torch.device("meta"):
            model = _built(run)
        with FakeTensorMode(allow_non_fake_inputs=True):
            _pretend(model)
            _count_weights(plan, model, config, found)
            _count_step(run, plan, model, arguments, rows, found)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what a run logs, and without what torch prints of a kernel that has no form without numbers."""
    quieted = {"ftk": logging.ERROR, "torch._subclasses.fake_tensor": logging.CRITICAL + 1}
    before = {name: logging.getLogger(name).level for name in quieted}
    for name, level in quieted.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _built(run: Run) -> Any:
    try:
        return run.model(trainable=True)
    except FtkError:
        raise
    except Exception as error:  # adapters that begin with numbers of the weights, which there are none of here
        where = run.plan.where("finetuning_type")
        what = " ".join(str(error).split())[:150] or type(error).__name__
        raise ConfigError(f"{where}: cannot be put on a model without weights ({what}). Take --probe") from error


def _pretend(model: nn.Module) -> None:
    """Put tensors of the CPU without contents in the place of those that are nowhere: kernels differ by device, and
    what peft and torch do with modules works on the latter only."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for name, one in [*module._parameters.items(), *module._buffers.items()]:
            if one is None or one.device.type != "meta":
                continue
            empty = torch.empty(one.shape, dtype=one.dtype, device="cpu")
            if isinstance(one, nn.Parameter):
                module._parameters[name] = made.setdefault(id(one), nn.Parameter(empty, one.requires_grad))
            else:
                module._buffers[name] = made.setdefault(id(one), empty)


def _count_weights(plan: Plan, model: Any, config: Any, found: Memory) -> None:
    """Weights as the run will hold them: those that stay frozen as they are stored or quantised."""
    stored = getattr(config, "dtype", None) or torch.float32
    bits = _bits(plan, config)
    packed = _packed(model) if bits else set()
    output = getattr(model.get_output_embeddings(), "weight", None)
    kept_as_stored = not any(value(plan, key) for key in ("bf16", "fp16", "pure_bf16"))
    total = 0.0
    for parameter in dict.fromkeys(model.parameters()):
        found.num_parameters += parameter.numel()
        found.num_trainable += parameter.numel() if parameter.requires_grad else 0
        size = float(parameter.element_size())
        if id(parameter) in packed and parameter is not output and not parameter.requires_grad:
            size = (bits + SCALES) / 8
        elif not parameter.requires_grad and kept_as_stored and parameter.dtype == torch.float32:
            size = stored.itemsize
        total += size * parameter.numel()
    found.weights = int(total) + num_bytes(model.buffers())
    if bits:
        found.notes.append(f"quantised weights are taken as {bits + SCALES:g} bits each, scales included")


def _bits(plan: Plan, config: Any) -> int:
    """Of quantised weights, asked for or stored; 0 for none."""
    if plan.one("quantizer"):
        return int(plan.value("quantization_bit"))
    stored = getattr(config, "quantization_config", None) or {}
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    return int(stored.get("bits") or (4 if stored.get("load_in_4bit") else 8)) if stored else 0


def _packed(model: nn.Module) -> set[int]:
    """The weights of linear layers."""
    return {id(one.weight) for one in model.modules() if isinstance(one, nn.Linear)}


def _count_step(run: Run, plan: Plan, model: Any, arguments: Any, rows: Rows, found: Memory) -> None:
    learning = [one for one in model.parameters() if one.requires_grad]
    found.gradients = num_bytes(learning)
    found.reference = _reference(plan, model, found)
    batch = longest_batch(rows, arguments.train_batch_size)
    found.batch = (len(batch), max(shape.num_tokens for shape in batch))
    options = run.options(TrainingOptions)
    model.train()
    if wants_checkpointing(options):
        model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        model.enable_input_require_grads()
    live = Live()
    live.take([*model.parameters(), *model.buffers()])
    begins = live.now
    with live:
        try:
            _loss(model, batch, options).backward()
        except Exception as error:  # what looks at numbers, as some kernels of experts do
            log.debug("activations: %s", error)
            said = " ".join(str(error).split())[:100]
            found.notes.append(f"activations are not counted, the model cannot run without numbers ({said}): --probe")
            live.restart()
        peak = live.peak - begins
        given = num_bytes(one.grad for one in learning if one.grad is not None)
        live.restart()
        found.optimizer, most = _optimizer(run, model, arguments, learning, live, found)
    again = given if arguments.gradient_accumulation_steps > 1 else 0
    # at the first pass gradients begin with the backward pass; accumulating, those of the passes before are there
    during_step = max(0, most - begins - found.gradients - found.optimizer)
    found.activations = max(peak + again - found.gradients, during_step, 0)


def longest_batch(rows: Rows, size: int) -> list[Shape]:
    """The forward rows of the worst batch: the longest rows together."""
    chosen = [rows.longest[number % len(rows.longest)] for number in range(size)]
    return [shape for row in chosen for shape in row]


def _loss(model: Any, batch: Sequence[Shape], options: TrainingOptions) -> torch.Tensor:
    """The mean cross-entropy, with logits only where somebody learns when the model can do that."""
    width = max(shape.num_tokens for shape in batch)
    ids_BT = torch.zeros(len(batch), width, dtype=torch.long)
    kept = len(frozenset().union(*(shape.trained for shape in batch))) or width
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    more = {"logits_to_keep": kept} if "logits_to_keep" in inspect.signature(base.forward).parameters else {}
    half = torch.bfloat16 if options.bf16 and not options.pure_bf16 else torch.float16 if options.fp16 else None
    with torch.autocast("cpu", dtype=half) if half else contextlib.nullcontext():
        logits_BKV = model(input_ids=ids_BT, use_cache=False, **more).logits
        logits_NV = logits_BKV.float().reshape(-1, logits_BKV.shape[-1])
        return nn.functional.cross_entropy(logits_NV, torch.zeros(len(logits_NV), dtype=torch.long))


def _optimizer(
    run: Run, model: Any, arguments: Any, learning: Sequence[Any], live: Live, found: Memory
) -> tuple[int, int]:
    """(bytes of its state, most bytes alive in the step). One that needs numbers is taken as Adam."""
    try:
        optimizer = run.optimizer(model) or _own(model, arguments)
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    except Exception as error:
        log.debug("optimizer: %s", error)
        per_weight, how = _sampled(run, model, arguments)
        found.notes.append(f"the optimizer cannot step without numbers: {per_weight:.3g} bytes for each weight, {how}")
        return int(sum(per_weight * one.numel() for one in learning)), 0
    states = [one for state in optimizer.state.values() for one in _tensors(state)]
    return num_bytes(states), live.peak


def _sampled(run: Run, model: Any, arguments: Any) -> tuple[float, str]:
    """(bytes of state for each weight, how that is known): as many as for a matrix with numbers, where that can be."""
    from transformers import Trainer

    unknown = (8.0, "as for Adam")
    if run.plan.one("optimizer"):  # a plugin's own wants the whole model
        return unknown
    try:
        cls, named = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        with unset_fake_temporarily():
            # several, since bitsandbytes keeps what an earlier run of this process said of parameters by their places
            matrices = [nn.Parameter(torch.zeros(512, 512)) for _ in range(8)]
            optimizer = cls(matrices, **named)
            for matrix in matrices:
                matrix.grad = torch.zeros_like(matrix)
            optimizer.step()
            states = min(num_bytes(_tensors(optimizer.state[matrix])) for matrix in matrices)
            return states / matrices[0].numel(), "as for a matrix of 512 x 512"
    except Exception as error:
        log.debug("optimizer of a matrix: %s", error)
        return unknown


def _own(model: Any, arguments: Any) -> Any:
    from transformers import Trainer

    cls, named = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    return cls([one for one in model.parameters() if one.requires_grad], **named)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Those in a state, however deep, in objects of the optimizer's own, too."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value))


def _reference(plan: Plan, model: Any, found: Memory) -> int:
    """Bytes of a model to measure against, where the stage has one that is not the run's own without its adapter."""
    from ftk_training.preference_options import PrecomputeOptions, ReferenceOptions
    from ftk_training.reference import can_be_disabled

    options = plan.options.get(ReferenceOptions)
    precomputed = getattr(plan.options.get(PrecomputeOptions), "precompute_ref_log_probs", False)
    if options is None or precomputed:
        return 0
    if options.ref_model is None:
        if can_be_disabled(model):
            return 0
        return num_bytes(one for one in model.parameters() if one.requires_grad)
    bits = options.ref_model_quantization_bit
    found.notes.append("the reference model is taken to be as large as the model")
    return int(found.num_parameters * (bits + SCALES) / 8) if bits else found.weights
