"""Answers of many callers made together: whoever comes while others are answered joins them at the next token.

Of the callers that wait, one at a time drives the model a step further for all of them. A caller that goes away takes
its answer out of the batch; while nobody asks for more, the model stands still. A server, whose callers are many, does
not wait but follows: one thread drives for all of those, as long as there are any.
"""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from ftk import Reply
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from ftk_hf_engine.answers import Answer, reply_of
from ftk_hf_engine.joined_cache import JoinedCache
from ftk_hf_engine.picking import pick

MOST_ROWS = 64
"""Answers in the making at a time; more wait."""
MOST_NEW_TOKENS = 16384
"""Tokens of prompts, with their padding, that are read in one step."""
PATIENCE, SHARE = 4, 8
"""Reading a prompt costs about as much as a step for all. So it waits until at least one new answer came for every
``SHARE`` in the making, but no more than ``PATIENCE`` steps."""

Answering = Callable[[str | None], AbstractContextManager[None]]
"""``answering(adapter)``: the model in evaluation mode with this adapter, as long as the block lasts."""


class Follows(Protocol):
    """Somebody who is told of an answer, in the thread that drives the model, and so has to be quick."""

    def said(self, pieces: list[str]) -> bool:
        """The pieces that have come since, perhaps none; false gives the answer up."""

    def ended(self, result: Reply | BaseException) -> None:
        """No more comes: the reply, or what went wrong."""


def can_join(model: Any) -> bool:
    """Whether answers of this model can be joined: its layers attend to keys and values, at positions it is told."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config
    text = config.get_text_config()
    if text is not config or getattr(config, "is_encoder_decoder", False):
        return False  # what is shown to a model may give its tokens positions in several dimensions
    if any(getattr(one, "is_prompt_learning", False) for one in getattr(model, "peft_config", {}).values()):
        return False  # tokens that nobody counted stand in front
    if getattr(getattr(base, "generation_config", None), "use_cache", True) is False:
        return False
    takes = inspect.signature(base.forward).parameters
    if not {"attention_mask", "position_ids", "past_key_values"} <= takes.keys():
        return False
    layers = DynamicCache(config=text).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


class Group:
    """Answers by the same weights and their cache; ``next``: the token of each that the model has still to read."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.next: list[int] = []
        self.cache: JoinedCache | None = None

    def join(self, answers: Sequence[Answer], tokens: Sequence[int], cache: JoinedCache) -> None:
        self.answers += answers
        self.next += tokens
        if self.cache is None:
            self.cache = cache
        else:
            self.cache.join(cache)

    def part(self) -> None:
        """Let go of what has ended."""
        left = [number for number, answer in enumerate(self.answers) if not answer.ended]
        if len(left) == len(self.answers):
            return
        self.answers = [self.answers[number] for number in left]
        self.next = [self.next[number] for number in left]
        if not left:
            self.cache = None
        elif self.cache is not None:
            self.cache.keep(left)


class Batcher:
    """Makes answers together. Every method may be called from any thread."""

    def __init__(self, model: Any, pad: int, answering: Answering) -> None:
        self.model, self.pad, self.answering = model, pad, answering
        self._changed = threading.Condition()
        self._driving = False
        self._waiting: deque[Answer] = deque()
        self._groups: dict[str | None, Group] = {}
        self._followed: list[tuple[Answer, Follows]] = []
        self._hosting = False
        self._passed = 0

    def answer(self, answers: Sequence[Answer]) -> list[Reply]:
        """The replies to all, in order. Raises what went wrong with any of them."""
        self._submit(answers)
        try:
            for answer in answers:
                while not answer.ended:
                    self._drive(lambda answer=answer: answer.ended)
        finally:
            self._cancel(answers)
        return [reply_of(answer) for answer in answers]

    def stream(self, answer: Answer) -> Generator[str, None, Reply]:
        """The pieces of one answer as they come."""
        self._submit([answer])
        try:
            while not answer.ended or answer.ready:
                if answer.ready:
                    yield answer.ready.popleft()
                else:
                    self._drive(lambda: answer.ended or bool(answer.ready))
        finally:
            self._cancel([answer])
        return reply_of(answer)

    def begin(self, answer: Answer, follows: Follows) -> None:
        """Make an answer while the caller goes on with other things."""
        with self._changed:
            self._waiting.append(answer)
            self._followed.append((answer, follows))
            if self._hosting:
                return
            self._hosting = True
        threading.Thread(target=self._host, name="ftk-answers", daemon=True).start()

    def _host(self) -> None:
        """Drive for all who follow, and tell them after each step."""
        while True:
            try:
                self._drive(lambda: False)
            except BaseException as error:
                for answer, _ in self._followed:
                    answer.error = answer.error or error
            with self._changed:
                followed = list(self._followed)
            over = [one for one in followed if self._tell(*one)]
            with self._changed:
                self._followed = [one for one in self._followed if one not in over]
                if self._followed:
                    continue
                if not self._driving:
                    for group in self._groups.values():
                        group.part()
                self._hosting = False
                return

    def _tell(self, answer: Answer, follows: Follows) -> bool:
        """Tell what is new of an answer, and whether that was all."""
        over = answer.ended  # before the pieces are taken, since another thread may drive, too
        pieces = list(answer.ready)
        answer.ready.clear()
        if not follows.said(pieces) and not over:
            answer.error, over = GeneratorExit("nobody waits for this answer any more"), True
        if over:
            follows.ended(answer.error or reply_of(answer))
        return over

    def _submit(self, answers: Sequence[Answer]) -> None:
        with self._changed:
            self._waiting.extend(answers)

    def _cancel(self, answers: Sequence[Answer]) -> None:
        """Whoever waited for these does so no more. What they took up is free with the next step, or now."""
        for answer in answers:
            if not answer.ended:
                answer.error = GeneratorExit("nobody waits for this answer any more")
        with self._changed:
            if not self._driving:
                for group in self._groups.values():
                    group.part()

    def _drive(self, there: Callable[[], bool]) -> None:
        """Take the model a step further, or wait for another caller who does, unless what is wanted is ``there``."""
        with self._changed:
            if self._driving:
                self._changed.wait()
                return
            if there():
                return
            self._driving = True
        try:
            self._step()
        finally:
            with self._changed:
                self._driving = False
                self._changed.notify_all()

    @torch.no_grad()  # inference mode would leave tensors in the model that a training cannot use
    def _step(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.set_device(self.model.device)  # each thread has its own
        for group in self._groups.values():
            group.part()
        self._admit()
        for adapter, group in self._groups.items():
            if group.answers:
                self._guarded(group.answers, adapter, lambda group=group: self._decode(group))
                group.part()

    def _admit(self) -> None:
        """Read the prompts of those who wait, while there is room, several at a time where many are answered."""
        going = sum(len(group.answers) for group in self._groups.values())
        if self._waiting and len(self._waiting) * SHARE < going and self._passed < PATIENCE:
            self._passed += 1
            return
        self._passed = 0
        while taken := self._taken():
            adapter = taken[0].adapter
            group = self._groups.setdefault(adapter, Group())
            self._guarded(taken, adapter, lambda taken=taken, group=group: self._read(taken, group))

    def _taken(self) -> list[Answer]:
        """The next to be read in one go: by the same weights, and of a size that fits."""
        taken: list[Answer] = []
        with self._changed:
            room = MOST_ROWS - sum(len(group.answers) for group in self._groups.values())
            while self._waiting and len(taken) < room:
                one = self._waiting[0]
                longest = max([len(one.prompt), *(len(other.prompt) for other in taken)])
                if taken and (one.adapter != taken[0].adapter or longest * (len(taken) + 1) > MOST_NEW_TOKENS):
                    break
                self._waiting.popleft()
                if not one.ended:
                    taken.append(one)
        return taken

    def _guarded(self, answers: list[Answer], adapter: str | None, work: Callable[[], None]) -> None:
        """Do a part of a step; what goes wrong in it is handed to those whom it concerns."""
        try:
            with self.answering(adapter):
                work()
        except BaseException as error:
            for answer in answers:
                answer.error = answer.error or error
            if not isinstance(error, Exception):
                raise

    def _read(self, answers: list[Answer], group: Group) -> None:
        width = max(len(answer.prompt) for answer in answers)
        lengths = [len(answer.prompt) for answer in answers]
        ids = [[self.pad] * (width - len(answer.prompt)) + answer.prompt for answer in answers]
        mask = [[0] * (width - length) + [1] * length for length in lengths]
        ids_BT, mask_BT = (torch.tensor(rows, device=self.model.device) for rows in (ids, mask))
        cache = JoinedCache(mask_BT)
        logits_BV = self._forward(ids_BT, mask_BT, (mask_BT.cumsum(1) - 1).clamp(min=0), cache)
        group.join(answers, self._told(logits_BV, answers), cache)
        group.part()

    def _decode(self, group: Group) -> None:
        assert group.cache is not None
        device = self.model.device
        ids_B1 = torch.tensor(group.next, device=device)[:, None]
        mask_BT = group.cache.next_column()
        logits_BV = self._forward(ids_B1, mask_BT, mask_BT.sum(1, keepdim=True) - 1, group.cache)
        group.next = self._told(logits_BV, group.answers)

    def _forward(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, positions_BT: torch.Tensor, cache: JoinedCache
    ) -> torch.Tensor:
        out = self.model(
            input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, past_key_values=cache, use_cache=True,
            **self._last_only(),
        )  # fmt: skip
        logits_BV: torch.Tensor = out.logits[:, -1]
        return logits_BV

    def _last_only(self) -> dict[str, int]:
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(base.forward).parameters else {}

    def _told(self, logits_BV: torch.Tensor, answers: Sequence[Answer]) -> list[int]:
        tokens = pick(logits_BV, [answer.picker for answer in answers])
        for answer, token in zip(answers, tokens, strict=True):
            if not answer.ended:
                answer.take(token)
        return tokens
