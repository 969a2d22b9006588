"""What transformers' own optimizers (``optim``) need, checked before a model is loaded.

The table was made by running each one (transformers 5.19): a few steps, a kill, and the resumed run against one that
was never interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import torch
from ftk import ConfigError
from ftk.errors import did_you_mean

from ftk_training.options import TrainingOptions

if TYPE_CHECKING:
    from ftk.run import Run


log = logging.getLogger("ftk.training")


class Needs(NamedTuple):
    """What an optimizer needs, and what it cannot do.

    module: what it imports. install: what to type for it, or why nobody can. accelerator: whether it needs one.
    targets: whether it needs optim_target_modules. in_backward: whether it updates weights within the backward pass,
    where gradients cannot be accumulated. forgets: why a run cannot go on from its checkpoints. broken: why it never
    works. instead: what to write in its place.
    """

    module: str = ""
    install: str = ""
    accelerator: bool = False
    targets: bool = False
    in_backward: bool = False
    forgets: str = ""
    broken: str = ""
    instead: str = ""


BITSANDBYTES = Needs("bitsandbytes", "pip install bitsandbytes")
PAGED = BITSANDBYTES._replace(accelerator=True)
SCHEDULE_FREE = Needs("schedulefree", "pip install schedulefree")
TORCHAO = Needs("torchao", "pip install torchao")
PICKLED = "it keeps its projections as pickled objects"
LOST = "it saves nothing of what it knows"
IN_BACKWARD = "updates weights within the backward pass, so it cannot accumulate"
GALORE = Needs("galore_torch", "pip install galore-torch", targets=True, forgets=PICKLED, instead="use_galore: true")
APOLLO = Needs("apollo_torch", "pip install apollo-torch", targets=True, forgets=PICKLED, instead="use_apollo: true")
GALORE_8BIT = GALORE._replace(accelerator=True, instead="use_galore: true and optim: adamw_8bit")
GALORE_LAYERWISE = GALORE._replace(in_backward=True, forgets=LOST, instead="use_galore and galore_layerwise: true")
APOLLO_LAYERWISE = APOLLO._replace(in_backward=True, forgets=LOST, instead="use_apollo and apollo_layerwise: true")

OPTIMS: Mapping[str, Needs] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"), Needs()),
    "adamw_torch_xla": Needs("torch_xla", "pip install torch_xla"),
    "adamw_torch_npu_fused": Needs("torch_npu", "pip install torch_npu"),
    "adamw_anyprecision": Needs("torchdistx", "it is no longer released; take pure_bf16: true"),
    **dict.fromkeys(("adamw_torch_4bit", "adamw_torch_8bit"), TORCHAO),
    **dict.fromkeys(
        ("adamw_bnb_8bit", "adamw_8bit", "ademamix", "ademamix_8bit", "lion_32bit", "lion_8bit", "rmsprop_bnb",
         "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"),
        BITSANDBYTES,
    ),
    "paged_adamw_32bit": PAGED._replace(instead="adamw_torch"),
    "paged_adamw_8bit": PAGED._replace(instead="adamw_8bit"),
    "paged_ademamix_32bit": PAGED._replace(instead="ademamix"),
    "paged_ademamix_8bit": PAGED._replace(instead="ademamix_8bit"),
    "paged_lion_32bit": PAGED._replace(instead="lion_32bit"),
    "paged_lion_8bit": PAGED._replace(instead="lion_8bit"),
    **dict.fromkeys(("schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd"), SCHEDULE_FREE),
    "galore_adamw": GALORE,
    "galore_adamw_8bit": GALORE_8BIT,
    "galore_adafactor": GALORE._replace(instead="use_galore: true and optim: adafactor"),
    "galore_adamw_layerwise": GALORE_LAYERWISE,
    "galore_adamw_8bit_layerwise": GALORE_8BIT._replace(in_backward=True, forgets=LOST),
    "galore_adafactor_layerwise": GALORE._replace(
        broken="transformers gives it settings that it refuses",
        instead="use_galore and galore_layerwise: true with optim: adafactor",
    ),
    "apollo_adamw": APOLLO,
    "apollo_adamw_layerwise": APOLLO_LAYERWISE,
    "lomo": Needs("lomo_optim", "pip install lomo-optim", in_backward=True),
    "adalomo": Needs("lomo_optim", "pip install lomo-optim", in_backward=True, accelerator=True, instead="lomo"),
    "grokadamw": Needs("grokadamw", "pip install grokadamw", forgets="losses after a resume are others"),
    "stable_adamw": Needs("optimi", "pip install torch-optimi"),
}  # fmt: skip
"""Names that are not here are newer than this table, and left to transformers."""


def check_optim(run: Run) -> None:
    """Refuse an optimizer that cannot work here, in one line, before anything is loaded.

    The optimizer of a plugin is asked instead, when its target has a function ``check(run)``.
    Raises ConfigError.
    """
    chosen = run.plan.one("optimizer")
    if chosen is not None:
        if "optim" in run.plan.given and "optim" not in chosen.reads:
            log.warning("%s: has no effect, %s decides", run.plan.where("optim"), chosen.switch)
        check = getattr(chosen.load(), "check", None)
        if check is not None:
            check(run)
        return
    options = run.options(TrainingOptions)
    name = options.optim
    problem = _problem(name, OPTIMS.get(name), options)
    if problem:
        raise ConfigError(f"{run.plan.where('optim')}: {problem}")


def _problem(name: str, needs: Needs | None, options: TrainingOptions) -> str:
    if needs is None:
        return _unknown(name)
    instead = f". Take {needs.instead}" if needs.instead else ""
    if needs.broken:
        return f"{needs.broken}{instead}"
    resumable = options.save_strategy != "no" and not options.save_only_model
    if needs.forgets and resumable:
        here = instead or ". Take another"
        return f"a run cannot go on from its checkpoints: {needs.forgets}{here}, or set save_only_model: true"
    if not _installed(needs.module):
        return f"needs {needs.module}, which is not installed: {needs.install}"
    if needs.accelerator and (options.use_cpu or not torch.accelerator.is_available()):
        return f"needs a GPU{instead}{' on the CPU' if instead else ''}"
    if needs.targets and not options.optim_target_modules:
        return "needs optim_target_modules, for instance all-linear"
    if needs.in_backward and options.gradient_accumulation_steps > 1:
        return f"{IN_BACKWARD} gradients. Set gradient_accumulation_steps: 1"
    return ""


def _installed(module: str) -> bool:
    return not module or find_spec(module) is not None


def _unknown(name: str) -> str:
    from transformers.training_args import OptimizerNames

    known = [one.value for one in OptimizerNames]
    if name in known:
        return ""
    return f"is no optimizer.{did_you_mean(name, known)} There is {', '.join(known)}"
