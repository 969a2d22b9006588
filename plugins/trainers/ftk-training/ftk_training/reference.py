"""The reference model of a run, and any other model beside the run's own.

A policy is measured against the model that it began as (π_ref of DPO, arXiv:2305.18290, eq. 4). Where an adapter learns
that is the model without it, which costs nothing; else it is what ``ref_model`` names or a frozen copy.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from ftk import Command, ConfigError
from ftk.plan import make_plan
from ftk.run import Run

from ftk_training import value_head
from ftk_training.checkpoints import configs_of
from ftk_training.learning import value
from ftk_training.options import TrainingOptions
from ftk_training.preference_options import ReferenceOptions
from ftk_training.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from ftk_training.trainer import ExactTrainer

log = logging.getLogger("ftk.training")

LOADING = Command("beside", uses=("model_loader", "quantizer", "model_patch", "adapter"))
"""Stands for what another model is loaded for: to answer, with the kinds that take part in that."""


@dataclass(frozen=True)
class Reference:
    """``with reference.model(policy) as model:`` gives the reference, in evaluation mode and without gradients.

    what: what it is, for the log and for caches. own: whether it is a part of the policy and costs no memory.
    """

    what: str
    own: bool
    _entered: Callable[[Any], AbstractContextManager[Any]]

    @contextmanager
    def model(self, policy: nn.Module) -> Iterator[Any]:
        """policy: the model as the trainer hands it to the loss, wrapped or not."""
        with self._entered(policy) as model, quiet(model):
            yield model


def reference_of(trainer: ExactTrainer, *, at_start: bool = False) -> Reference:
    """The reference of a run, for a trainer whose model still has the weights that training begins with.

    at_start: it is only asked before the first step, so the model itself will do where else a copy had to be made.
    Raises ConfigError where a model is spread over processes and would have to be copied.
    """
    run = trainer.run
    options = run.options(ReferenceOptions)
    policy = trainer.accelerator.unwrap_model(trainer.model)
    if options.ref_model is not None:
        other = beside(
            run, "ref_model", options.ref_model, options.ref_model_adapters, options.ref_model_quantization_bit
        )
        made = Reference(options.ref_model, False, _always(placed(trainer, other.model(trainable=False))))
    elif can_be_disabled(policy):  # also one that stays beside a quantised model that is only evaluated
        _tell_continued(run)
        made = Reference("the model without its adapter", True, _without_adapter(trainer))
    elif (beneath := _beneath(run)) is not None:
        other = beside(run, "adapter_name_or_path", run.value("model_name_or_path"), beneath)
        made = Reference("the model without its adapter", False, _always(placed(trainer, other.model(trainable=False))))
    elif at_start:
        made = Reference("the model as it begins", True, lambda model: nullcontext(model))
    else:
        made = Reference("a frozen copy", False, _always(frozen_copy(trainer, policy)))
    log.info("reference: %s", made.what)
    return made


def _always(model: Any) -> Callable[[Any], AbstractContextManager[Any]]:
    return lambda _: nullcontext(model)


def _beneath(run: Run) -> tuple[str, ...] | None:
    """The adapters under the one that a run only evaluates and has merged; None where it is no such run."""
    paths = tuple(run.value("adapter_name_or_path") or ())
    if run.options(TrainingOptions).do_train or not paths or value(run, "create_new_adapter"):
        return None
    return paths[:-1]


def _tell_continued(run: Run) -> None:
    paths = run.value("adapter_name_or_path")
    if paths and not value(run, "create_new_adapter"):
        log.warning(
            "%s: goes on learning, so the reference is the model without it. create_new_adapter: true merges it, and "
            "the reference is the model with it", run.plan.where("adapter_name_or_path")
        )  # fmt: skip


def can_be_disabled(model: Any) -> bool:
    """Whether all that learns in a model is an adapter that can be switched off; a value head says no words."""
    if not hasattr(model, "disable_adapter") or not getattr(model, "peft_config", None):
        return False
    names = tuple(f".{name}" for name in model.peft_config)
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    heard = [name for name in learning if name not in value_head.KEYS]
    return all(any(name.endswith(one) or f"{one}." in name for one in names) for name in heard)


def _without_adapter(trainer: ExactTrainer) -> Callable[[Any], AbstractContextManager[Any]]:
    @contextmanager
    def entered(model: Any) -> Iterator[Any]:
        inner = trainer.accelerator.unwrap_model(model)
        with inner.disable_adapter():
            yield model

    return entered


def frozen_copy(trainer: ExactTrainer, model: Any) -> Any:
    """The model as it is now, where it is and in its types. What does not learn is shared, not copied: a model of which
    the last layers learn has a copy of those. Raises ConfigError where the weights are spread over processes.
    """
    if trainer.is_fsdp_enabled or (trainer.is_deepspeed_enabled and _is_zero3()):
        raise ConfigError(
            f"{trainer.run.plan.config}: a model that is spread over processes cannot be copied. Set "
            "precompute_ref_log_probs: true, name a ref_model, or train an adapter (finetuning_type)"
        )
    shared = [one for one in model.parameters() if not one.requires_grad] + list(model.buffers())
    return copy.deepcopy(model, {id(one): one for one in shared}).requires_grad_(False).eval()


def _is_zero3() -> bool:
    from transformers.integrations import is_deepspeed_zero3_enabled

    return bool(is_deepspeed_zero3_enabled())


def placed(trainer: ExactTrainer, model: Any) -> Any:
    """A model that only answers on the device of this process, in the type that the run computes in."""
    run = trainer.run
    model.requires_grad_(False)
    for config in configs_of(model):
        config.use_cache = False  # with keys and values kept, transformers does not look for documents in a row
    quantised = getattr(model, "quantization_method", None) is not None
    spread = getattr(model, "hf_device_map", None)
    if not quantised and not spread:
        half = torch.float16 if value(run, "fp16") else None
        half = torch.bfloat16 if value(run, "bf16") or value(run, "pure_bf16") else half
        model = model.to(device=trainer.args.device, dtype=half)
    return model.eval()


def beside(run: Run, key: str, name: str, adapters: Sequence[str] = (), bits: int | None = None) -> Run:
    """A run that loads another model by the settings of this one: ``beside(...).model(trainable=False)``.

    key: the option that names it, for errors. How it is loaded (attention, scaling, access) is this run's; its adapters
    are merged, and nothing of what this run trains is made. Raises FtkError for what is wrong with it.
    """
    plan = run.plan
    where = plan.given[key].where if key in plan.given else plan.config
    dropped = {"finetuning_type", "quantization_bit", "quantization_method", "report_to", "launcher"}
    kinds = [kind for kind, one in plan.registry.kinds.items() if kind == "adapter" or one.within.startswith("adapter")]
    classes = {cls for kind in kinds for spec in plan.registry.specs(kind).values() for cls in spec.option_classes}
    settings = {
        name: setting
        for name, setting in plan.given.items()
        if name not in dropped and plan.registry.options[name].owner not in classes
    }
    given = {"model_name_or_path": name, "adapter_name_or_path": tuple(adapters), "quantization_bit": bits}
    own = plan.given["model_name_or_path"]
    settings |= {option: replace(own, value=one, where=where) for option, one in given.items()}
    return Run(make_plan(settings, plan.registry, config=plan.config, command=LOADING))
