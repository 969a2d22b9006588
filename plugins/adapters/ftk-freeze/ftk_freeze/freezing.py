"""Finding the layers and modules that learn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ftk import ModelError
from ftk.errors import did_you_mean
from ftk_training.learning import is_freed, settle, value, why_kept
from torch import nn

from ftk_freeze import FreezeOptions

if TYPE_CHECKING:
    from ftk.run import Run


def apply(model: Any, run: Run, trainable: bool) -> Any:
    """The model with ``requires_grad`` where the options say, and nowhere else; what learns is float32.

    Without mixed precision the whole model becomes float32, because all its weights compute in one type; ``pure_bf16``
    leaves it. What a patch keeps does not learn, what it has freed (a vision tower) does. With ``trainable=False``
    nothing is changed.
    Raises ModelError for a name that is not in the model, and when nothing is left that learns.
    """
    if not trainable:
        return model
    learning = [*_in_layers(model, run), *_extra(model, run)]
    for name, parameter in model.named_parameters():
        wanted = _is_under(name, learning) or is_freed(run, name)
        parameter.requires_grad_(wanted and not why_kept(run, name))
    if (tied := _tied_output(model, learning)) is not None:
        tied.requires_grad_(True)
    if not any(value(run, key) for key in ("pure_bf16", "bf16", "fp16")):
        for parameter in model.parameters():
            parameter.data = parameter.data.float()
    settle(model, run, run.plan.where("freeze_trainable_layers"))
    return model


def layers_of(model: Any) -> dict[str, nn.Module]:
    """The layers of the language model by full name, in order. Raises ModelError when there is no such stack."""
    count = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    stacks = [one for one in decoder.modules() if isinstance(one, nn.ModuleList) and len(one) == count]
    names = {id(module): name for name, module in model.named_modules()}
    stacks = [one for one in stacks if id(one) in names]
    if not stacks:
        raise ModelError(f"{model.config.model_type}: its layers cannot be found. Take finetuning_type: full or lora")
    largest = max(stacks, key=lambda stack: sum(weight.numel() for weight in stack.parameters()))
    return {names[id(layer)]: layer for layer in largest}


def _in_layers(model: Any, run: Run) -> list[str]:
    """Full names of the modules that learn inside of the chosen layers.

    Counted are the layers that may learn: a patch that keeps all but some leaves those to choose from.
    """
    options = run.options(FreezeOptions)
    layers = {name: layer for name, layer in layers_of(model).items() if not why_kept(run, name)}
    names, number = list(layers), options.freeze_trainable_layers
    chosen = names[:-number] if number < 0 else names[max(0, len(names) - number) :]
    if "all" in options.freeze_trainable_modules:
        return chosen
    inner = [inside for layer in layers.values() for inside, _ in layer.named_modules() if inside]
    for wanted in options.freeze_trainable_modules:
        _check(wanted, inner, run, "freeze_trainable_modules", "the layers have no")
    return [
        f"{name}.{inside}"
        for name in chosen
        for inside, _ in layers[name].named_modules()
        if any(_fits(wanted, inside) for wanted in options.freeze_trainable_modules)
    ]


def _extra(model: Any, run: Run) -> list[str]:
    wanted = run.options(FreezeOptions).freeze_extra_modules
    layers = list(layers_of(model))
    outside = [name for name, _ in model.named_modules() if name and not _is_around_or_under(name, layers)]
    for one in wanted:
        _check(one, outside, run, "freeze_extra_modules", "outside of the layers there is no")
        for name in outside:
            if _fits(one, name) and (who := why_kept(run, name)):
                raise ModelError(f"{run.plan.where('freeze_extra_modules')}: {one} may not learn: {who}")
    return [name for name in outside if any(_fits(one, name) for one in wanted)]


def _check(wanted: str, names: Iterable[str], run: Run, key: str, lacks: str) -> None:
    names = list(names)
    if not any(_fits(wanted, name) for name in names):
        there = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
        there = [one for one in there if not one.isdigit()]
        guess = did_you_mean(wanted, there)
        raise ModelError(f"{run.plan.where(key)}: {lacks} {wanted}.{guess} There is {', '.join(sorted(there))}")


def _fits(wanted: str, name: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _is_under(name: str, tops: Iterable[str]) -> bool:
    return any(name.startswith(f"{top}.") or name == top for top in tops)


def _is_around_or_under(name: str, layers: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{layer}.") or layer.startswith(f"{name}.") for layer in layers)


def _tied_output(model: Any, learning: Iterable[str]) -> nn.Parameter | None:
    """The weight that the output layer shares with the embeddings, when either of them learns.

    A shared weight has one name, so one that was named by the other would be missed.
    """
    output = model.get_output_embeddings()
    if output is None or getattr(output, "weight", None) is None:
        return None
    places = [name for name, module in model.named_modules(remove_duplicate=False) if module is output]
    return output.weight if any(_is_under(place, learning) for place in places) else None
