"""Answers that a model gave, how it was asked for them, and how both stand in a checkpoint.

Shapes: N answers, J judges; A tokens of one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from ftk import ConfigError, Message, Prompt, Sampling
from ftk.kernel_options import SamplingOptions
from ftk_data.originals import Original, Originals

if TYPE_CHECKING:
    from ftk.run import Run


@dataclass
class Rolled:
    """Answers and what is known of them; lists of one length.

    prompt_ids, answer_ids: tokens. trained: whether the loss sees the answer. scores_NJ: what each judge said; rewards:
    the sums. values: name → for each answer what belongs to its tokens, (A,).
    """

    prompts: list[int]
    prompt_ids: list[list[int]]
    answer_ids: list[list[int]]
    finished: list[bool]
    texts: list[str]
    media: list[tuple[Any, ...]]
    originals: list[Original]
    trained: list[bool] = field(default_factory=list)
    scores_NJ: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    rewards: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    values: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)


def sampling_of(run: Run) -> Sampling:
    """How answers are sampled: as the run says, and what it does not say from the model's whole distribution.

    Gradients of a policy hold for what the policy itself says, so the defaults of chatting (the likeliest 70 per cent
    of 50 tokens) would bias them. Raises ConfigError where nothing is sampled.
    """
    options = run.options(SamplingOptions)
    whole = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    unsaid = {key: value for key, value in whole.items() if key not in run.plan.given}
    sampling = replace(options.sampling(), **unsaid)
    for key in ("temperature", "do_sample"):
        if not getattr(sampling, key):
            raise ConfigError(f"{run.plan.where(key)}: a model that learns from its answers must sample. Take it out")
    if sampling.num_beams > 1:
        raise ConfigError(f"{run.plan.where('num_beams')}: beams do not sample. Take it out")
    return sampling


@dataclass(frozen=True)
class Asked:
    """A prompt: for engines, as tokens, and what it was made of."""

    prompt: Prompt
    ids: list[int]
    media: tuple[Any, ...]
    original: Original


def prompt_at(sets: Sequence[tuple[Any, Originals]], number: int) -> Asked:
    """The prompt of a number that counts through all ``sets``."""
    for rows, originals in sets:
        if number < len(rows):
            row, original = rows[number], originals[number]
            return Asked(asked(original), row["input_ids"].tolist(), row.get("media", ()), original)
        number -= len(rows)
    raise IndexError(number)


def asked(original: Original) -> Prompt:
    """The conversation up to the answer that the model is to give."""
    example = cast("Any", original.example)
    messages: tuple[Message, ...] = tuple(example.messages)
    return Prompt(messages[:-1] if messages[-1].role == "assistant" else messages, example.tools)


def reference_answer(original: Original) -> str:
    """The text of the answer in the data, empty where there is none."""
    last: Message = cast("Any", original.example).messages[-1]
    return last.text if last.role == "assistant" else ""


def stored(rolled: Rolled, number: int) -> dict[str, torch.Tensor]:
    """The answers of a phase as tensors; ``number``: which phase."""
    tensors = {
        "number": torch.tensor(number),
        "prompts": torch.tensor(rolled.prompts),
        "finished": torch.tensor(rolled.finished),
        "trained": torch.tensor(rolled.trained),
        "lengths": torch.tensor([len(ids) for ids in rolled.answer_ids]),
        "answers": torch.tensor([token for ids in rolled.answer_ids for token in ids], dtype=torch.int64),
    }
    tensors |= {f"values.{name}": torch.cat(values).cpu() for name, values in rolled.values.items()}
    return {name: one.contiguous() for name, one in tensors.items()}


def restored(saved: Mapping[str, torch.Tensor], sets: Sequence[tuple[Any, Originals]]) -> tuple[int, Rolled]:
    """What :func:`stored` gave: the number of the phase, and its answers to the prompts of ``sets``."""
    lengths = saved["lengths"].tolist()
    prompts = [prompt_at(sets, number) for number in saved["prompts"].tolist()]
    return int(saved["number"]), Rolled(
        prompts=saved["prompts"].tolist(),
        prompt_ids=[one.ids for one in prompts],
        answer_ids=[part.tolist() for part in saved["answers"].split(lengths)],
        finished=saved["finished"].tolist(),
        texts=[""] * len(lengths),
        media=[one.media for one in prompts],
        originals=[one.original for one in prompts],
        trained=saved["trained"].tolist(),
        values={
            name.removeprefix("values."): list(values.split(lengths))
            for name, values in saved.items()
            if name.startswith("values.")
        },
    )
