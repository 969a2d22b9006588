"""A number for every position of a text: a linear layer on the last hidden states of any language model.

It is TRL's ``AutoModelForCausalLMWithValueHead`` (``v_head.summary`` of width 1, with dropout before it) without the
wrapper: the head is a module ``v_head`` of the model itself, and the model's output gets ``token_values``. So adapters,
quantised weights, checkpointing and every wrapper for several devices work as they do without it, and the head's
gradient takes part in theirs. It computes in float32, whatever the model does.

A stage calls :func:`with_value_head`; a model that only answers gets :func:`attach` and :func:`load`. The file is
LLaMA-Factory's ``value_head.safetensors`` beside the adapter or model, with ``v_head.summary.weight`` and ``bias``.

Tensors: B rows, T tokens, H width of the hidden states.
"""

from __future__ import annotations

import inspect
import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import extract_model_from_parallel
from ftk import CheckpointError, ModelError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import distributed, nn

from ftk_training import learning

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.training")

FILE = "value_head.safetensors"
OLD_FILE = "value_head.bin"
NAME = "v_head"
KEYS = (f"{NAME}.summary.weight", f"{NAME}.summary.bias")
"""The names in the file, which are the parameters' names in the model."""
HEARD = "_ftk_last_hidden_state"


class ValueHead(nn.Module):
    """``dropout``: the share of the hidden state that is left out while training."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.summary = nn.Linear(width, 1, dtype=torch.float32)

    def forward(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        """(B, T) values in float32."""
        weight = self.summary.weight
        with torch.autocast(hidden_BTH.device.type, enabled=False):
            values_BT1: torch.Tensor = self.summary(self.dropout(hidden_BTH.to(weight.device, weight.dtype)))
        return values_BT1.squeeze(-1).float()


def attach(model: Any, *, dropout: float = 0.0, seed: int = 0) -> ValueHead:
    """Give a model a value head, random as of ``seed``, and let its output hold ``token_values`` (B, T) from now on.

    Call it when adapters are in place. A model that has one keeps it. Raises ModelError for a model without a decoder
    whose hidden states could be heard.
    """
    if (there := head_of(model)) is not None:
        return there
    decoder, config = decoder_of(model), model.config.get_text_config(decoder=True)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        head = ValueHead(config.hidden_size, dropout)
    model.add_module(NAME, head.to(_device_of(model)))
    decoder.register_forward_hook(_hear)
    model.register_forward_hook(_say)
    base = _base(model)
    base._keys_to_ignore_on_save = [*(base._keys_to_ignore_on_save or ()), *KEYS]  # they have a file of their own
    return head


def head_of(model: Any) -> ValueHead | None:
    """The value head of a model, however it is wrapped; None without one."""
    head = getattr(unwrapped(model), NAME, None)
    return head if isinstance(head, ValueHead) else None


def values(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """The values (B, T) of every position, float32, with gradient. The vocabulary's logits are not computed.

    batch: what the model reads; labels are left out. Raises ModelError for a model without a head.
    """
    inner = unwrapped(model)
    if head_of(inner) is None:
        raise ModelError(f"{type(inner).__name__} has no value head. Give it one with ftk_training.value_head.attach")
    inputs = {name: one for name, one in batch.items() if name not in ("labels", "shift_labels", "loss_weights")}
    if "logits_to_keep" in inspect.signature(_base(inner).forward).parameters:
        inputs["logits_to_keep"] = torch.zeros(0, dtype=torch.int64, device=inputs["input_ids"].device)
    found: torch.Tensor | None = model(**inputs, use_cache=False).get("token_values")
    if found is None:
        raise ModelError(f"{type(inner).__name__}: its hidden states cannot be heard, so it can have no value head")
    return found


@contextmanager
def using(model: Any, head: ValueHead) -> Iterator[None]:
    """Let another head speak for a model that has one: that of a reward adapter beside the critic's own."""
    inner = unwrapped(model)
    own = getattr(inner, NAME)
    setattr(inner, NAME, head)
    try:
        yield
    finally:
        setattr(inner, NAME, own)


def unwrapped(model: Any) -> Any:
    """The model without what spreads it over devices or compiles it."""
    return extract_model_from_parallel(model, keep_torch_compile=False)


def decoder_of(model: Any) -> nn.Module:
    """The part of a model that gives the hidden states after its last norm. Raises ModelError when there is none."""
    base = _base(model)
    found = base.get_decoder() if hasattr(base, "get_decoder") else None
    if found is None or found is base:
        found = base.base_model
    if found is None or found is base:
        raise ModelError(f"{type(base).__name__}: its decoder cannot be found, so it can have no value head")
    decoder: nn.Module = found
    return decoder


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _device_of(model: Any) -> torch.device:
    output = _base(model).get_output_embeddings()
    weight = next((output if output is not None else model).parameters())
    return torch.device("cpu") if weight.device.type == "meta" else weight.device


# Hooks are plain functions of the module that they are told of, so that copies of the model have their own.


def _hear(decoder: nn.Module, _: Any, output: Any) -> None:
    decoder.__dict__[HEARD] = output[0] if isinstance(output, tuple) else output.last_hidden_state


class Spread(dict[str, Any]):
    """An output as DDP lets it through: it takes transformers' outputs apart and puts them together without what their
    classes do not know."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _say(model: nn.Module, _: Any, output: Any) -> Any:
    hidden_BTH = decoder_of(model).__dict__.pop(HEARD, None)
    head = head_of(model)
    if hidden_BTH is not None and head is not None and isinstance(output, dict):
        # not "values": an output is a dict whose keys are attributes, too, and DDP calls its values()
        output["token_values"] = head(hidden_BTH)
    return Spread(output) if torch.is_grad_enabled() and distributed.is_initialized() else output


# Training


def with_value_head(run: Run, model: Any) -> Any:
    """The run's model with a value head that learns, and is saved and loaded with it: :class:`Saved`.

    It begins as the one that lies beside ``adapter_name_or_path`` or the model, else random. What only the vocabulary's
    logits need learns nothing where they are not computed, so the caller decides about the output layer.
    """
    head = attach(model, dropout=float(learning.value(run, "value_head_dropout") or 0.0), seed=run.seed)
    if (state := beside(run)) is not None:
        put(head, state, run.plan.config)
        log.info("the value head goes on from the one that was saved")
    learning.add_companion(run, Saved())
    return model


class Saved:
    """A :class:`ftk_training.learning.Companion`: the head in a file of its own, in checkpoints and the result."""

    def save(self, model: Any, folder: Path, state_dict: Mapping[str, torch.Tensor] | None) -> None:
        save(model, folder, state_dict)

    def restore(self, model: Any, folder: Path) -> None:
        load(model, folder)

    def parameters(self, model: Any) -> list[nn.Parameter]:
        head = head_of(model)
        return [weight for weight in head.parameters() if weight.requires_grad] if head is not None else []


# Files


def save(model: Any, folder: Path, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the head of a model into a folder. state_dict: the gathered weights of a model that is spread."""
    found = unwrapped(model).state_dict() if state_dict is None else state_dict
    write({key: found[key] for key in KEYS}, folder)


def write(state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write what :func:`read` has read: an export copies a head with it."""
    plain = {key: value.detach().to("cpu", torch.float32).contiguous() for key, value in state.items()}
    save_file(plain, folder / FILE, metadata={"format": "pt"})


def load(model: Any, folder: Path) -> None:
    """Set the head of a model to the one of a folder. Raises CheckpointError when there is none or it does not fit."""
    state, head = read(folder), head_of(model)
    if state is None or head is None:
        raise CheckpointError(f"{folder}: has no {FILE}, so it is no model that gives rewards or values")
    put(head, state, str(folder))


def put(head: ValueHead, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Set a head's weights. Raises CheckpointError, which begins with ``where``, when they are of another width."""
    weight, bias = (state[key] for key in KEYS)
    if weight.shape != head.summary.weight.shape:
        raise CheckpointError(
            f"{where}: its value head is for hidden states of width {weight.shape[-1]}, the model's are "
            f"{head.summary.weight.shape[-1]} wide. Take the model that it learnt on"
        )
    with torch.no_grad():
        head.summary.weight.copy_(weight)
        head.summary.bias.copy_(bias)


def made_of(state: Mapping[str, torch.Tensor]) -> ValueHead:
    """A head by itself with the weights of a file, see :func:`using`."""
    head = ValueHead(state[KEYS[0]].shape[-1])
    put(head, state, FILE)
    return head.requires_grad_(False)


def read(folder: Path) -> dict[str, torch.Tensor] | None:
    """The weights of the head in a folder, by the names of :data:`KEYS`; None when it holds none.

    ``value_head.bin`` of older programs is read as tensors and nothing else. Raises CheckpointError for a file that is
    damaged, holds other objects or lacks the weights.
    """
    for path in (folder / FILE, folder / OLD_FILE):
        if path.is_file():
            return _named(path, _opened(path))
    return None


def _opened(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise CheckpointError(
            f"{path}: holds objects that are no tensors, which could run any code, so it is not read. "
            f"Ask its author for {FILE}"
        ) from cause
    except (SafetensorError, RuntimeError, EOFError, OSError) as cause:
        raise CheckpointError(f"{path}: is damaged: {str(cause).splitlines()[0] if str(cause) else cause!r}") from cause
    return found if isinstance(found, Mapping) else {}


def _named(path: Path, found: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    lacking = [key for key in KEYS if not isinstance(found.get(key), torch.Tensor)]
    if lacking:
        raise CheckpointError(f"{path}: lacks {', '.join(lacking)}; it holds {', '.join(map(str, found)) or 'nothing'}")
    return {key: found[key] for key in KEYS}


def beside(run: Run) -> dict[str, torch.Tensor] | None:
    """The head that lies beside the last of ``adapter_name_or_path``, else beside the model; None when there is none.

    A name on the hub is looked up in its cache and, unless that is offline, there.
    """
    adapters = learning.value(run, "adapter_name_or_path") or ()
    for name in (*reversed(adapters), str(run.model_path)):
        if (folder := _local(run, name)) is not None and (state := read(folder)) is not None:
            return state
    return None


def _local(run: Run, name: str) -> Path | None:
    folder = Path(name).expanduser()
    if folder.is_dir():
        inner = folder / str(learning.value(run, "adapter_folder") or "")
        return inner if any((inner / one).is_file() for one in (FILE, OLD_FILE)) else folder
    from transformers.utils import cached_file

    access = {"cache_dir": learning.value(run, "cache_dir"), "token": learning.value(run, "hf_hub_token")}
    for file in (FILE, OLD_FILE):
        try:
            found = cached_file(name, file, **access, _raise_exceptions_for_missing_entries=False)
        except OSError:  # no such repository any more, no network, or a name of another scheme
            return None
        if found is not None:
            return Path(found).parent
    return None
