"""What each stage makes of an example: which conversations become rows, and what of them is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ftk import ChatExample, DataError, FeedbackExample, Message, PairExample, TextExample

from ftk_data.placing import media_of

if TYPE_CHECKING:
    from ftk_data.options import DataOptions

CHOSEN, REJECTED = 0, 1
DISLIKED, LIKED = 0, 1


class Part(NamedTuple):
    """A conversation of an example, and what it is in it: chosen or rejected, liked or not; else 0."""

    messages: Sequence[Message]
    role: int = 0


@dataclass(frozen=True)
class Stage:
    """How examples of one kind become rows.

    parts: example → its conversations. together: the rows of an example are of use only all together, one for each
    conversation. answered: rows without a trained token are dropped; a row that needs none has what is before its first
    trained token measured against ``cutoff_len``. policies: what may become of a row that is too long; any other policy
    drops it. learns_prompts: ``train_on_prompt`` has an effect. refuses: options of data that have no meaning here.
    """

    name: str
    wanted: type
    parts: Callable[[Any, DataOptions], Sequence[Part]]
    together: bool = False
    answered: bool = True
    policies: frozenset[str] = frozenset({"truncate", "drop", "split", "error"})
    learns_prompts: bool = False
    refuses: tuple[str, ...] = ()


def with_flags(messages: Sequence[Message], options: DataOptions) -> Sequence[Message]:
    """The messages with ``mask_history`` applied: only the last answer is trained."""
    return last_only(messages) if options.mask_history else messages


def last_only(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages with the last answer alone to be trained, whatever was said of it; its own flag stays."""
    last = max((i for i, message in enumerate(messages) if message.role == "assistant"), default=-1)
    return [replace(message, trained=message.trained if i == last else False) for i, message in enumerate(messages)]


def _continued(messages: Sequence[Message], answer: Sequence[Message]) -> Sequence[Message]:
    """A prompt with an answer, which alone is trained, but for turns of it that say otherwise."""
    before = [replace(message, trained=False) if message.role == "assistant" else message for message in messages]
    return [*before, *answer]


def _chat(example: ChatExample, options: DataOptions) -> Sequence[Part]:
    return (Part(with_flags(example.messages, options)),)


def _pair(example: PairExample, options: DataOptions) -> Sequence[Part]:
    return (
        Part(_continued(example.messages, example.chosen), CHOSEN),
        Part(_continued(example.messages, example.rejected), REJECTED),
    )


def _feedback(example: FeedbackExample, options: DataOptions) -> Sequence[Part]:
    if not example.messages or example.messages[-1].role != "assistant":
        raise DataError("has no answer to like or dislike at its end")
    *before, last = example.messages
    _refuse_media(last)
    return (Part(_continued(before, [last]), LIKED if example.desirable else DISLIKED),)


def _prompt(example: ChatExample, options: DataOptions) -> Sequence[Part]:
    if not example.messages:
        raise DataError("holds no message")
    *before, last = example.messages
    if last.role != "assistant":
        return (Part(_continued(example.messages, [])),)
    _refuse_media(last)
    return (Part(_continued(before, [replace(last, trained=None)])),)  # a reference, whatever its flag says


def _refuse_media(answer: Message) -> None:
    """Rows of these stages put prompts and answers together anew, so what a row shows has to be in its prompt."""
    if shown := media_of([answer]):
        raise DataError(f"its answer shows {shown[0].kind}s, and an answer of this stage is text")


NO_PROMPTS = ("train_on_prompt", "mask_history")
TEXT = Stage("text", TextExample, lambda example, options: (), refuses=NO_PROMPTS)
CHAT = Stage("chat", ChatExample, _chat, learns_prompts=True)
WHOLE = frozenset({"truncate", "drop", "error"})
"""Half an answer without its prompt can be neither liked nor preferred."""
NEITHER = (*NO_PROMPTS, "neat_packing")
PAIRS = Stage("pairs", PairExample, _pair, together=True, policies=WHOLE, refuses=NEITHER)
FEEDBACK = Stage("feedback", FeedbackExample, _feedback, policies=WHOLE, refuses=NEITHER)
PROMPTS = Stage("prompts", ChatExample, _prompt, answered=False, policies=frozenset({"drop", "error"}))
