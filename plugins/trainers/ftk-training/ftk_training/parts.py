"""What a model that sees or hears consists of: towers, a projector behind them, and a language model.

No model is known by name here. transformers says which module is the decoder and which are encoders (``get_decoder``,
``get_encoder``), and each pretrained module says what it takes (``input_modalities``, ``main_input_name``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel

TEXT_INPUTS = ("input_ids", "inputs_embeds", "decoder_input_ids")
MODALITIES = ("image", "video", "audio")


class Parts(NamedTuple):
    """Full names of modules and parameters; each of a model's weights is under exactly one of them.

    towers: what turns pixels and sounds into features. projector: all between them and the language model.
    language: the decoder with its embeddings and the output layer.
    A model that only reads text has no parts.
    """

    towers: tuple[str, ...] = ()
    projector: tuple[str, ...] = ()
    language: tuple[str, ...] = ()

    @property
    def beside_language(self) -> tuple[str, ...]:
        """What a model has to see or hear with."""
        return (*self.towers, *self.projector)


def parts_of(model: nn.Module) -> Parts:
    """The parts of a model as it was loaded, before any adapter."""
    anatomy = _Anatomy(model)
    if not anatomy.towers and not _modalities(model):
        return Parts()  # some models that read text have more than a decoder, too
    found: dict[str, list[str]] = {"towers": [], "projector": [], "language": []}
    for name, part in anatomy.sorted(model, "", "projector"):
        found[part].append(name)
    if not found["projector"]:
        found["towers"], found["projector"] = anatomy.without_mergers(found["towers"])
    if not found["language"] or not (found["towers"] or found["projector"]):
        return Parts()
    return Parts(tuple(found["towers"]), tuple(found["projector"]), tuple(found["language"]))


def towers_of(model: nn.Module) -> list[nn.Module]:
    """The towers as whole modules, also of a model with adapters."""
    return _Anatomy(model).towers


def under(name: str, tops: tuple[str, ...]) -> bool:
    """Whether a full name is one of these or beneath one."""
    return any(name == top or name.startswith(f"{top}.") for top in tops)


class _Anatomy:
    """What transformers says of a model.

    words, output: the embeddings at both ends. decoder: what it calls so, which may be the whole model.
    towers: the outermost modules that take media and no text. language: the decoder, if it is a part; else the smallest
    pretrained module that knows the words.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.words = _asked(model, "get_input_embeddings")
        self.output = _asked(model, "get_output_embeddings")
        decoder = _asked(model, "get_decoder")
        self.towers = self._towers(decoder)
        self.language = self._language(decoder)

    def _towers(self, decoder: nn.Module | None) -> list[nn.Module]:
        """What transformers calls encoders of media, and what is fed with pixels or sounds.

        Of a modality that has neither, modules that take it alone; else they stand behind a tower (Idefics 2 has one).
        """
        encoders = {id(_asked(self.model, "get_encoder", one)) for one in MODALITIES}
        modules = [one for one in self.model.modules() if one is not self.model]
        modules = [one for one in modules if not _has(one, self.words, decoder)]
        found = _outermost(one for one in modules if id(one) in encoders or _is_fed_with_media(one))
        served = {one for tower in found for one in _modalities(tower)}
        alone = (one for one in modules if isinstance(one, PreTrainedModel) and _modalities(one))
        lone = [one for one in alone if "text" not in _modalities(one) and not _modalities(one) & served]
        return _outermost([*found, *lone])

    def _language(self, decoder: nn.Module | None) -> nn.Module | None:
        if decoder is not None and decoder is not self.model and not _has(decoder, *self.towers):
            return decoder
        pretrained = [one for one in self.model.modules() if isinstance(one, PreTrainedModel) and one is not self.model]
        alone = [one for one in pretrained if _has(one, self.words) and not _has(one, *self.towers)]
        return alone[-1] if alone else decoder

    def sorted(self, module: nn.Module, name: str, part: str) -> Iterator[tuple[str, str]]:
        """(name, part) of what is beneath a module that holds several; what nothing else is said of is ``part``."""
        for child, one in module.named_children():
            full = f"{name}.{child}" if name else child
            if any(one is tower for tower in self.towers):
                yield full, "towers"
            elif _has(one, *self.towers) or (one is not self.language and _has(one, self.language)):
                yield from self.sorted(one, full, "language" if one is self.language else "projector")
            elif next(one.parameters(), None) is not None:
                yield full, "language" if _has(one, self.language, self.words, self.output) else part
        for child, _ in module.named_parameters(recurse=False):
            yield f"{name}.{child}" if name else child, part

    def without_mergers(self, towers: list[str]) -> tuple[list[str], list[str]]:
        """The towers in pieces, and the projectors inside them, as Qwen2-VL has it (``visual.merger``)."""
        width = _last_width(self.words, "embedding_dim") if self.words is not None else None
        pieces: list[str] = []
        mergers: list[str] = []
        for name in towers:
            tower = self.model.get_submodule(name)
            merger = _merger(tower, width)
            mergers += [f"{name}.{merger}"] if merger else []
            inner = [child for child, one in tower.named_children() if next(one.parameters(), None) is not None]
            inner += [child for child, _ in tower.named_parameters(recurse=False)]
            pieces += [f"{name}.{child}" for child in inner if child != merger] if merger else [name]
        return pieces, mergers


def _outermost(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Those that are not inside another, which stands before what is in it."""
    found: list[nn.Module] = []
    inside: set[int] = set()
    for module in modules:
        if id(module) not in inside:
            found.append(module)
            inside.update(map(id, module.modules()))
    return found


def _is_fed_with_media(module: nn.Module) -> bool:
    return isinstance(module, PreTrainedModel) and module.main_input_name not in TEXT_INPUTS


def _modalities(module: nn.Module) -> set[str]:
    """What a module takes; nothing for one that only reads text."""
    said = getattr(module, "input_modalities", None) or ()
    found = {said} if isinstance(said, str) else set(said)
    return found if found & set(MODALITIES) else set()


def _merger(tower: nn.Module, width: int | None) -> str:
    """The last module behind a tower's layers whose output is as wide as the language model; empty without one."""
    children = list(tower.named_children())
    stacks = [number for number, (_, one) in enumerate(children) if isinstance(one, nn.ModuleList)]
    behind = children[stacks[0] + 1 :] if stacks else []
    lone = [(child, one) for child, one in behind if not isinstance(one, nn.ModuleList)]
    fitting = [child for child, one in lone if width and _last_width(one, "out_features") == width]
    return fitting[-1] if fitting else ""


def _last_width(module: nn.Module, side: str) -> int | None:
    widths = [getattr(one, side, None) for one in module.modules()]
    return next((int(width) for width in reversed(widths) if width is not None), None)


def _asked(model: nn.Module, question: str, *arguments: Any) -> Any:
    """What a model answers; None for one that has no such method or no answer."""
    try:
        return getattr(model, question)(*arguments)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None


def _has(module: nn.Module, *wanted: nn.Module | None) -> bool:
    looked_for = {id(one) for one in wanted if one is not None}
    return bool(looked_for) and any(id(one) in looked_for for one in module.modules())
