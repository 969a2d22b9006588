"""Putting the chunked loss into a model's ``forward``, without knowing the model.

The model's own ``forward`` stays in charge. Two things in it are exchanged for the time of a call: its backbone (the
child that turns tokens into hidden states) and its loss function. In the first pass the backbone runs, and what leaves
it is kept while ``forward`` sees a single position; the loss function, which transformers calls with the labels, sends
chunks of the kept states through ``forward`` again, now with a backbone that just hands them over. So whatever a model
does between backbone and loss (an output layer with a bias or an adapter, soft capping, scaling) is done by its own
code, and whatever it adds to the loss afterwards (the balance of experts) is added.

Shapes: B rows, T tokens, N trained tokens, H width of the hidden states, V words.
"""

from __future__ import annotations

import copy
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.loss.loss_utils import ForCausalLMLoss

from ftk_chunked_loss import ChunkedLossOptions
from ftk_chunked_loss.chunks import Task, total_loss, total_without_gradient
from ftk_chunked_loss.exchanging import Handed, exchanged, loss_exchanged, with_hidden

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.chunked_loss")

OF_LOSS = ("labels", "shift_labels", "num_items_in_batch", "loss_weights", "label_smoothing")
"""Arguments of ``forward`` that belong to the loss. The last two are ours: (B, T) or (B, K) weights, and a share."""

Call = dict[str, Any]


def patch(model: Any, run: Run) -> Any:
    """The model, with the chunked loss where that gives the model's own loss and gradients; else as it is.

    A run that does not train is left alone. The log says what was done, and why not.
    """
    if run.plan.one("trainer") is None:
        return model
    why = _unsuitable_run(run) or _unsuitable(model)
    if why:
        log.info("the loss is computed by the model itself, not in chunks: %s", why)
        return model
    for name in backbone_names(model):
        chunked = ChunkedForward(model, name, run.options(ChunkedLossOptions).chunked_loss_size)
        why = chunked.differs(model)
        if not why:
            chunked.install(model)
            return model
    log.info("the loss is computed by the model itself, not in chunks: %s", why)
    return model


OTHERWISE = {
    "torch_compile": "torch_compile compiles the model as it is",
    "enable_liger_kernel": "Liger has its own",
    "use_unsloth": "Unsloth has its own",
    "deepspeed": "DeepSpeed gathers weights in an order of calls that it has seen before",
}
"""Key → why a run that sets it keeps the model's own loss."""


def _unsuitable_run(run: Run) -> str:
    known = run.plan.registry.options
    for key, why in OTHERWISE.items():
        if key in known and run.value(key):
            return why
    on_cpu = "use_cpu" in known and run.value("use_cpu")
    if torch.cuda.device_count() > 1 and "WORLD_SIZE" not in os.environ and not on_cpu:
        return "one process drives several GPUs"
    return ""


def _unsuitable(model: Any) -> str:
    """Why the structure of a model does not allow it; empty when it does."""
    if not isinstance(getattr(type(model), "loss_function", None), property) or model.config.is_encoder_decoder:
        return "it is no causal language model of transformers"
    if model.loss_function is not ForCausalLMLoss:
        return f"its loss is {getattr(model.loss_function, '__name__', model.loss_function)}"
    output = model.get_output_embeddings()
    if output is None or not backbone_names(model):
        return "it has no backbone with an output layer behind it"
    return ""


def backbone_names(model: Any) -> list[str]:
    """Full names of the modules that embed the tokens and do not hold the output layer, the outermost first."""
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    found = []
    for name, module in model.named_modules():
        inside = set(module.modules())
        if embeddings in inside and output not in inside and module is not embeddings:
            found.append(name)
    return found


class ChunkedForward:
    """A model's ``forward`` with the loss in chunks. Holds no part of the model, so that a model can be copied.

    own: the ``forward`` before. backbone: the full name of the module that makes hidden states.
    size: tokens of a chunk.
    """

    def __init__(self, model: Any, backbone: str, size: int | None) -> None:
        self.own = _function(model.forward)
        self.names = list(inspect.signature(self.own).parameters)[1:]
        if hasattr(model.config.get_text_config(), "output_router_logits"):
            self.names.append("output_router_logits")  # where it is no argument of its own, it is one of **kwargs
        self.backbone = backbone
        words = model.get_output_embeddings().weight.shape[0]
        self.size = size or max(256, 2**25 // words)

    def install(self, model: Any) -> None:
        own, chunked = self.own, self

        def forward(self: Any, *arguments: Any, **named: Any) -> Any:
            call = dict(zip(chunked.names, arguments, strict=False)) | named
            if call.get("labels") is None and call.get("shift_labels") is None:
                return own(self, *arguments, **named)
            return chunked.run(self, call)

        forward.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]  # Trainer asks what it takes
        model.forward = MethodType(forward, model)
        model.weighs_losses = True  # ftk-training: it takes loss_weights and label_smoothing
        log.info("the loss is computed in chunks of %d tokens", self.size)

    def run(self, model: Any, call: Call, *, hidden_BTH: torch.Tensor | None = None) -> Any:
        """What ``forward`` returns, with ``num_right`` instead of ``logits`` where no gradient is wanted.

        hidden_BTH: these hidden states instead of the backbone's.
        """
        real = model.get_submodule(self.backbone)
        kept: dict[str, Any] = {}

        def narrowed(*arguments: Any, **named: Any) -> Any:
            outputs = real(*arguments, **named) if hidden_BTH is None else Handed(hidden_BTH)
            kept["outputs"], kept["hidden"] = outputs, outputs[0]
            return with_hidden(outputs, outputs[0][:1, :1].detach())

        def loss(logits: Any, labels: Any = None, vocab_size: Any = None, *_: Any, **given: Any) -> torch.Tensor:
            return self._loss(model, call, kept, labels, given)

        arguments = {name: value for name, value in call.items() if name not in OF_LOSS[3:]}
        if "logits_to_keep" in arguments:
            arguments["logits_to_keep"] = 0
        with exchanged(model, self.backbone, narrowed), loss_exchanged(model, loss):
            outputs = self.own(model, **arguments)
        if not isinstance(outputs, dict):
            return outputs
        outputs = type(outputs)(**{name: value for name, value in outputs.items() if name != "logits"})
        if "right" in kept:
            outputs["num_right"] = kept["right"]
        return outputs

    def _loss(self, model: Any, call: Call, kept: dict[str, Any], labels: Any, given: Mapping[str, Any]) -> Any:
        """The mean over the step's trained tokens, as transformers' ``ForCausalLMLoss`` has it."""
        hidden_BTH, shifted, weights = kept["hidden"], given.get("shift_labels"), call.get("loss_weights")
        keep = call.get("logits_to_keep", 0)
        if not isinstance(keep, int):
            hidden_BTH = hidden_BTH[:, keep]
        elif keep:
            hidden_BTH = hidden_BTH[:, -keep:]
        if shifted is None:
            shifted = labels[..., 1:]
            hidden_BTH = hidden_BTH[:, :-1]
            if weights is not None:
                weights = weights[..., 1:]
        trained_BT = (shifted != given.get("ignore_index", -100)).to(hidden_BTH.device)
        hidden_NH = hidden_BTH[trained_BT]
        task = Task(
            lambda part_CH: self.logits(model, call, kept["outputs"], part_CH),
            self.size,
            shifted.to(hidden_BTH.device)[trained_BT],
            None if weights is None else weights.to(hidden_BTH.device)[trained_BT],
            call.get("label_smoothing") or 0.0,
        )
        if torch.is_grad_enabled():
            total = total_loss(task, hidden_NH, self._learning(model))
        else:
            total, kept["right"] = total_without_gradient(task, hidden_NH)
        items = given.get("num_items_in_batch")
        items = trained_BT.sum() if items is None else items
        return total / (items.to(total.device) if isinstance(items, torch.Tensor) else items)

    def logits(self, model: Any, call: Call, outputs: Any, hidden_CH: torch.Tensor) -> torch.Tensor:
        """(C, V): what ``forward`` makes of hidden states, its backbone aside."""
        arguments = {name: value for name, value in call.items() if name not in OF_LOSS} | self._bare()
        with exchanged(model, self.backbone, lambda *_, **__: with_hidden(outputs, hidden_CH[None])):
            logits_1CV: torch.Tensor = self.own(model, **arguments).logits
        return logits_1CV[0]

    def _bare(self) -> Call:
        """Arguments with which ``forward`` makes logits of all states and nothing else."""
        bare = {"logits_to_keep": 0, "output_router_logits": False, "use_cache": False}
        return {name: value for name, value in bare.items() if name in self.names}

    def _learning(self, model: Any) -> list[nn.Parameter]:
        """The parameters behind the backbone that learn, each once; a tied output layer is one of them."""
        found: dict[int, nn.Parameter] = {}
        around = model
        for name in self.backbone.split("."):
            aside = [child for own, child in around.named_children() if own != name]
            for one in (*around.parameters(recurse=False), *(one for child in aside for one in child.parameters())):
                if one.requires_grad:
                    found[id(one)] = one
            around = getattr(around, name)
        return list(found.values())

    @torch.enable_grad()
    def differs(self, model: Any) -> str:
        """Empty when loss and gradients are the model's own on hidden states of a few tokens, else why they are not.

        The backbone does not run, so that it costs nothing whatever the size of the model.
        """
        weight = model.get_output_embeddings().weight
        dtype = weight.dtype if weight.dtype.is_floating_point else model.dtype
        width = getattr(model.get_output_embeddings(), "in_features", weight.shape[-1])
        states = torch.arange(9 * width, device=weight.device, dtype=torch.float32).sin().view(1, 9, width).to(dtype)
        labels = torch.arange(9, device=weight.device)[None] * 7919 % weight.shape[0]
        labels[0, 4] = -100
        call = {"input_ids": torch.ones_like(labels), "labels": labels, **self._bare()}
        found = []
        small = copy.copy(self)
        small.size = 3
        try:
            for mine in (False, True):
                hidden_BTH = states.clone().requires_grad_()
                if mine:
                    loss = small.run(model, call, hidden_BTH=hidden_BTH).loss
                else:
                    handed = Handed(hidden_BTH)
                    with exchanged(model, self.backbone, lambda *_, handed=handed, **__: handed):
                        loss = self.own(model, **call).loss
                found.append((loss.detach(), torch.autograd.grad(loss, hidden_BTH)[0]))
        except Exception as error:  # what a forward may trip over is not ours to list
            return (
                f"its forward cannot be called that way ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
            )
        (own_loss, own_gradient), (loss, gradient) = found
        tolerance = 1e-4 if dtype in (torch.float32, torch.float64) else 3e-2
        apart = max(
            float((loss - own_loss).abs() / own_loss.abs()),
            float((gradient.float() - own_gradient.float()).norm() / own_gradient.float().norm()),
        )
        return "" if apart < tolerance else f"on a small batch its own loss or gradient differs by {apart:.1e}"


def _function(bound: Any) -> Callable[..., Any]:
    """The function behind a method, to be called with the model."""
    return (
        bound.__func__ if isinstance(bound, MethodType) else lambda _, *arguments, **named: bound(*arguments, **named)
    )
