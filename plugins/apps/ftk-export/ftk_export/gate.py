"""The parity gate: an export is opened again, by itself, and compared with the model that was trained.

Four things have to agree: the logits on prompts, what the model says when it takes the likeliest token each time, the
text of the chat template to the byte, and the tokens that end an answer. Shapes: T tokens, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from ftk import FtkError, Message
from ftk_data import renderer
from ftk_data.messages import as_dicts
from ftk_data.prompts import PromptEncoder

from ftk_export.pictures import pictured, processed, shown_with
from ftk_export.writing import stop_ids

if TYPE_CHECKING:
    from ftk.run import Run

ASKED: tuple[tuple[Message, ...], ...] = (
    (Message("user", "What is the capital of France?"),),
    (Message("system", "Answer in one word."), Message("user", "Zähle bis drei: eins, zwei …")),
    (Message("user", "写一个 Python 函数 🙂\n\tdef f(x):"), Message("assistant", "x + 1"), Message("user", "Why?")),
)
MOST_NEW = 24
SHOWN = 60


class ParityError(FtkError):
    """An export that is not the model that was trained."""


class Opened(Protocol):
    """An export that was read back. It may have a ``tolerance`` of its own, in the place of the format's."""

    def logits(self, ids: Sequence[int], shown: Mapping[str, Any] | None = None) -> torch.Tensor:
        """(T, V), float32, for the tokens of one prompt. ``shown``: pixels and what else goes with them."""

    def prompt(self, messages: Sequence[Message]) -> str | None:
        """The text of a prompt by the chat template in the export; None when it holds none."""

    def stops(self) -> set[int] | None:
        """The tokens that end an answer; None when the export does not say."""


@dataclass
class Seen:
    """One prompt, the trained model's logits (T, V) of it, and the tokens that it goes on with.

    shown: ``of(ids)``, what goes into the model beside the tokens.
    """

    messages: tuple[Message, ...]
    text: str
    ids: list[int]
    logits_TV: torch.Tensor
    said: list[int]
    shown: Callable[[Sequence[int]], Mapping[str, Any]]
    pictures: int = 0


class Gate:
    """Looks at the trained model, later at its export."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.template = renderer(run)
        self.seen: list[Seen] = []
        self.stops: set[int] = set()

    def look(self, model: Any) -> None:
        """Remember what the trained model says to each prompt that its template can write."""
        media = self.run.media if self.run.processor is not None else None
        encoder = PromptEncoder(self.template, self.run.tokenizer, media)
        for messages in (*ASKED, *([pictured()] if media is not None else [])):
            try:
                text, ((ids, seen),) = self.template.prompt_text(messages), encoder.shown([(messages, ())])
            except FtkError:  # a family without system turns, or without pictures
                continue
            shown = shown_with(self.run, seen)
            said = followed(lambda given, shown=shown: logits_of(model, given, shown(given)), ids)
            self.seen.append(Seen(messages, text, ids, logits_of(model, ids, shown(ids)), said, shown, len(seen)))
        found = stop_ids(self.template, self.run.tokenizer, model.generation_config)
        self.stops = {found} if isinstance(found, int) else set(found or ())

    def compare(self, opened: Opened, tolerance: float) -> str:
        """What was compared, in a line. Raises ParityError with the first difference."""
        worst, same = 0.0, 0
        for one in self.seen:
            written = opened.prompt(one.messages)
            if written is not None and written != one.text:
                raise ParityError(f"the chat template of the export writes {_from(written, one.text)}")
            if one.pictures and hasattr(opened, "pictured"):
                read = opened.pictured(one.text)
                if read is not None and read != one.ids:
                    raise ParityError(
                        f"the processor of the export makes {len(read)} tokens of a picture, not {len(one.ids)}"
                    )
            found_TV = opened.logits(one.ids, one.shown(one.ids))
            words = min(found_TV.shape[1], one.logits_TV.shape[1])
            apart = float((found_TV[:, :words] - one.logits_TV[:, :words]).norm() / one.logits_TV.norm())
            worst = max(worst, apart)
            if not apart <= tolerance:
                raise ParityError(
                    f"the logits of the export are {apart:.1e} from the trained model's, and may be {tolerance:.0e}. "
                    "export_tolerance allows more, --no-verify skips this"
                )
            same += self._same_words(one, opened, tolerance)
        stops = opened.stops()
        if stops is not None and not self.stops <= stops:
            missing = self.run.tokenizer.convert_ids_to_tokens(sorted(self.stops - stops))
            raise ParityError(f"the export does not end answers at {', '.join(missing)}")
        pictures = sum(one.pictures for one in self.seen)
        prompts = f"{len(self.seen)} prompts{' (1 with a picture)' if pictures else ''}"
        return f"{prompts}: logits {worst:.1e} apart, {same} tokens said alike, template and ends equal"

    def _same_words(self, one: Seen, opened: Opened, tolerance: float) -> int:
        """How many tokens are said alike. A token may differ where the two likeliest are nearer than the tolerance."""
        found = followed(lambda ids: opened.logits(ids, one.shown(ids)), one.ids)
        for number, (token, wanted) in enumerate(zip(found, one.said, strict=False)):
            if token == wanted:
                continue
            ids = [*one.ids, *one.said[:number]]
            last_V = opened.logits(ids, one.shown(ids))[-1]
            if float(last_V[token] - last_V[wanted]) > 4 * tolerance * float(last_V.abs().max()):
                texts = [self.run.tokenizer.decode(ids)[:SHOWN] for ids in (found, one.said)]
                raise ParityError(f"the export says {texts[0]!r}, the trained model {texts[1]!r}")
            return number
        return len(one.said)


@torch.no_grad()
def logits_of(model: Any, ids: Sequence[int], shown: Mapping[str, Any] | None = None) -> torch.Tensor:
    """(T, V), float32, on the CPU, of a model of transformers."""
    model.eval()
    beside = {
        name: one.to(model.device, model.dtype if one.is_floating_point() else one.dtype)
        for name, one in (shown or {}).items()
    }
    ids_BT = torch.tensor([list(ids)], device=model.device)
    found: torch.Tensor = model(ids_BT, use_cache=False, **beside).logits[0].float().cpu()
    return found[-len(ids) :]


def followed(logits: Any, ids: Sequence[int]) -> list[int]:
    """The likeliest tokens after a prompt."""
    said: list[int] = []
    for _ in range(MOST_NEW):
        said.append(int(logits([*ids, *said])[-1].argmax()))
    return said


def _from(text: str, wanted: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(text, wanted, strict=False)) if a != b), min(len(text), len(wanted)))
    return f"{text[at : at + SHOWN]!r} where the run writes {wanted[at : at + SHOWN]!r}"


class WithTransformers:
    """The folder as transformers alone reads it."""

    def __init__(self, folder: Path, kind: Any) -> None:
        """kind: the class of the model."""
        from transformers import AutoTokenizer, GenerationConfig

        self.model = kind.from_pretrained(folder, dtype="auto", local_files_only=True)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.folder = folder
        self.generation = GenerationConfig.from_pretrained(folder, local_files_only=True)

    def logits(self, ids: Sequence[int], shown: Mapping[str, Any] | None = None) -> torch.Tensor:
        return logits_of(self.model, ids, shown)

    def prompt(self, messages: Sequence[Message]) -> str | None:
        said = as_dicts(messages, None)
        return str(self.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))

    def stops(self) -> set[int] | None:
        ends = self.generation.eos_token_id
        return set(ends if isinstance(ends, list) else [ends]) - {None}

    def pictured(self, text: str) -> list[int] | None:
        """The tokens of a prompt that shows the gate's picture, by the processor of the export; None without one."""
        return processed(self.folder, text)
