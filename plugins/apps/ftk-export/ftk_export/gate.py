"""The parity gate: an export is opened again, by itself, and compared with the model that was trained.

Four things have to agree: the logits on prompts, what the model says when it takes the likeliest token each time, the
text of the chat template to the byte, and the tokens that end an answer. Shapes: T tokens, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from ftk import FtkError, Message
from ftk_data import renderer
from ftk_data.prompts import PromptEncoder

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

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """(T, V), float32, for the tokens of one prompt."""

    def prompt(self, messages: Sequence[Message]) -> str | None:
        """The text of a prompt by the chat template in the export; None when it holds none."""

    def stops(self) -> set[int] | None:
        """The tokens that end an answer; None when the export does not say."""


@dataclass
class Seen:
    """One prompt, the trained model's logits (T, V) of it, and the tokens that it goes on with."""

    messages: tuple[Message, ...]
    text: str
    ids: list[int]
    logits_TV: torch.Tensor
    said: list[int]


class Gate:
    """Looks at the trained model, later at its export."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.template = renderer(run)
        self.seen: list[Seen] = []
        self.stops: set[int] = set()

    def look(self, model: Any) -> None:
        """Remember what the trained model says to each prompt that its template can write."""
        encoder = PromptEncoder(self.template, self.run.tokenizer)
        for messages in ASKED:
            try:
                text, (ids,) = self.template.prompt_text(messages), encoder.ids([(messages, ())])
            except FtkError:  # a family without system turns, for instance
                continue
            said = followed(lambda given: logits_of(model, given), ids)
            self.seen.append(Seen(messages, text, ids, logits_of(model, ids), said))
        found = stop_ids(self.template, self.run.tokenizer, model.generation_config)
        self.stops = {found} if isinstance(found, int) else set(found or ())

    def compare(self, opened: Opened, tolerance: float) -> str:
        """What was compared, in a line. Raises ParityError with the first difference."""
        worst, same = 0.0, 0
        for one in self.seen:
            written = opened.prompt(one.messages)
            if written is not None and written != one.text:
                raise ParityError(f"the chat template of the export writes {_from(written, one.text)}")
            found_TV = opened.logits(one.ids)
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
        return f"{len(self.seen)} prompts: logits {worst:.1e} apart, {same} tokens said alike, template and ends equal"

    def _same_words(self, one: Seen, opened: Opened, tolerance: float) -> int:
        """How many tokens are said alike. A token may differ where the two likeliest are nearer than the tolerance."""
        found = followed(opened.logits, one.ids)
        for number, (token, wanted) in enumerate(zip(found, one.said, strict=False)):
            if token == wanted:
                continue
            last_V = opened.logits([*one.ids, *one.said[:number]])[-1]
            if float(last_V[token] - last_V[wanted]) > 4 * tolerance * float(last_V.abs().max()):
                texts = [self.run.tokenizer.decode(ids)[:SHOWN] for ids in (found, one.said)]
                raise ParityError(f"the export says {texts[0]!r}, the trained model {texts[1]!r}")
            return number
        return len(one.said)


@torch.no_grad()
def logits_of(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """(T, V), float32, on the CPU, of a model of transformers."""
    model.eval()
    found: torch.Tensor = model(torch.tensor([list(ids)], device=model.device), use_cache=False).logits[0].float().cpu()
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
        self.generation = GenerationConfig.from_pretrained(folder, local_files_only=True)

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        return logits_of(self.model, ids)

    def prompt(self, messages: Sequence[Message]) -> str | None:
        said = [{"role": one.role, "content": one.text} for one in messages]
        return str(self.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))

    def stops(self) -> set[int] | None:
        ends = self.generation.eos_token_id
        return set(ends if isinstance(ends, list) else [ends]) - {None}
