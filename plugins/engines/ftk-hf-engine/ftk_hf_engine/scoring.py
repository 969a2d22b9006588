"""How probable a model finds what was said. Shapes: T tokens of a conversation, V words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from ftk import DataError, Prompt
from ftk_data.prompts import PromptEncoder

Placed = Callable[[dict[str, torch.Tensor], Sequence[Sequence[Any]]], dict[str, torch.Tensor]]
"""``placed(batch, media) -> the batch with its media, where the model is``."""


class Answered(NamedTuple):
    """A conversation as it is trained. scored: which tokens are the last answer and its stop token."""

    tokens: list[int]
    scored: list[bool]
    media: list[Any]


def answered(tokenizer: Any, template: Any, encoder: PromptEncoder, prompt: Prompt) -> Answered:
    """Raises DataError when the conversation does not end with an answer."""
    if not prompt.messages or prompt.messages[-1].role != "assistant":
        raise DataError("score: the conversation does not end with an answer")
    before = [replace(message, trained=False) for message in prompt.messages[:-1]]
    row = template.render([*before, replace(prompt.messages[-1], trained=True)], prompt.tools)[-1]
    row = encoder.with_media(row, prompt.messages)
    encoded = tokenizer([segment.text for segment in row], add_special_tokens=False)["input_ids"]
    return Answered(
        [token for part in encoded for token in part],
        [segment.trained for segment, part in zip(row, encoded, strict=True) for _ in part],
        [segment.media for segment in row if segment.media is not None],
    )


@torch.no_grad()
def log_probs(
    model: Any, tokenizer: Any, template: Any, encoder: PromptEncoder, prompt: Prompt, placed: Placed
) -> torch.Tensor:
    """The natural log-probability of each token of a conversation's last turn, its stop token included.

    Raises DataError when the conversation does not end with an answer.
    """
    tokens, scored, media = answered(tokenizer, template, encoder, prompt)
    inputs = placed({"input_ids": torch.tensor([tokens])}, [media])
    logits_TV = model(**inputs, use_cache=False).logits[0, :-1]
    places = torch.tensor(scored[1:], device=logits_TV.device).nonzero()[:, 0]
    said = inputs["input_ids"][0, 1:].to(logits_TV.device)[places]
    chosen: torch.Tensor = logits_TV[places].float().log_softmax(-1).gather(1, said[:, None])[:, 0]
    return chosen
