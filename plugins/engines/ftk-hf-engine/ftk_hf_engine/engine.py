"""The engine: prompts become tokens, tokens become answers, made together where the model lets them be joined."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from ftk import DataError, Prompt, Reply, Sampling
from ftk_data import renderer
from ftk_data.prompts import PromptEncoder
from ftk_peft import NamedAdapterOptions

from ftk_hf_engine.alone import Alone
from ftk_hf_engine.answers import Answer
from ftk_hf_engine.batching import Batcher, Follows, can_join
from ftk_hf_engine.continuing import Asked, likelihoods
from ftk_hf_engine.picking import Picker
from ftk_hf_engine.pieces import Pieces
from ftk_hf_engine.scoring import Answered, answered, log_probs
from ftk_hf_engine.shaping import Shapes

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk.types import Media, MediaEncoder
    from ftk_peft.named import NamedAdapters


def build(run: Run, model: Any) -> HuggingfaceEngine:
    """The engine on a model that is loaded. A model on the CPU moves to the accelerator unless ``use_cpu``."""
    on_cpu = "use_cpu" in run.plan.registry.options and run.value("use_cpu")
    placed = model.device.type != "cpu" or getattr(model, "hf_device_map", None) is not None
    if torch.accelerator.is_available() and not on_cpu and not placed:
        model = model.to(torch.accelerator.current_accelerator())
    media = run.media if run.processor is not None else None  # without one a model that sees can still read
    adapters = None
    if run.options(NamedAdapterOptions).lora_modules:
        from ftk_peft.named import NamedAdapters

        adapters = NamedAdapters(model, run)
        model = adapters.model
    return HuggingfaceEngine(model, run.tokenizer, renderer(run), media, adapters, run)


class HuggingfaceEngine:
    """A :class:`ftk.types.RunningEngine`. ``media`` shows the model what a prompt holds beside text.

    Special tokens that stand in a user's text are read as special tokens, as in training.
    An answer ends with the tokenizer's end token, the model's own ends, the template's stops or the request's.
    Answers of all callers are made together, token by token, where :func:`ftk_hf_engine.batching.can_join`; elsewhere,
    with media or with beams one call runs at a time. An answer is sampled with random numbers of its own: those of its
    seed and of its place in the call, so they do not depend on who else is answered.
    """

    def __init__(
        self, model: Any, tokenizer: Any, template: Any, media: MediaEncoder | None = None,
        named: NamedAdapters | None = None, run: Run | None = None,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.template, self.media = model, tokenizer, template, media
        self.adapters = named.names if named is not None else ()
        self._named, self._run = named, run
        self._turn = threading.RLock()
        self._prompts = PromptEncoder(template, tokenizer, media)
        added = tokenizer.get_added_vocab()
        self._stops = tuple(stop for stop in template.stop if stop not in added)
        own = model.generation_config.eos_token_id if model.generation_config else None
        ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
        self._ends = sorted({*ends, *(added[stop] for stop in template.stop if stop in added)} - {None})
        self._limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._shapes = Shapes(tokenizer, self._ends, model.get_output_embeddings().weight.shape[0])
        self._users = 0
        self._trained = False
        self._batcher = Batcher(model, self._pad, self._answering) if can_join(model) else None
        self._alone = Alone(model, self._pad, self._ends, self._answering)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Reply]:
        """Answer every prompt, in order. Raises DataError for a prompt longer than the model reads."""
        if not prompts:
            return []
        shown = self._shown(prompts)
        answers = [self._answer(ids, sampling, number) for number, (ids, _) in enumerate(shown)]
        with self._in_use():
            if self._joins(shown, sampling):
                return self._batcher.answer(answers)
            return self._alone.answer(answers, self._inputs(shown))

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[str, None, Reply]:
        """Answer one prompt piece by piece. Closing the iterator stops the model after its current token.

        Beam search knows its answer only at the end, so it comes as one piece.
        """
        shown = self._shown([prompt])
        answer = self._answer(shown[0][0], sampling, 0)
        with self._in_use():
            if self._joins(shown, sampling):
                return (yield from self._batcher.stream(answer))
            return (yield from self._alone.stream(answer, self._inputs(shown)))

    def begin(self, prompt: Prompt, sampling: Sampling, follows: Follows) -> bool:
        """Make an answer that ``follows`` is told of, in another thread; false where only a stream can be made."""
        shown = self._shown([prompt])
        if self._batcher is None or not self._joins(shown, sampling):
            return False
        answer = self._answer(shown[0][0], sampling, 0)
        using = ExitStack()
        using.enter_context(self._in_use())
        self._batcher.begin(answer, Following(follows, using))
        return True

    def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """The mean natural log-probability per token of each conversation's last turn, its stop token included.

        Raises DataError when a conversation does not end with an answer.
        """
        return [float(one.mean()) for one in self.log_probs(prompts)]

    def log_probs(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """The natural log-probabilities of the tokens of each conversation's last turn, see :meth:`score`."""
        with self._in_use(), self._answering():
            parts = (self.model, self.tokenizer, self.template, self._prompts)
            return [log_probs(*parts, one, self._placed) for one in prompts]

    def likelihoods(self, asked: Sequence[Asked]) -> list[list[tuple[float, bool]]]:
        """For each (tokens that are read, tokens that follow) the log-probability of each that follows, as one batch.

        With each stands whether it is the likeliest, see :func:`ftk_hf_engine.continuing.likelihoods`.
        """
        with self._in_use(), self._answering():
            return likelihoods(self.model, asked, self._pad, self._limit, self._placed)

    def reward(self, prompts: Sequence[Prompt]) -> list[float]:
        """What a reward model gives each conversation, as one batch: its value at the last token.

        The value head is the model's own or, when it has none, the one that lies beside the adapter or the files that
        it was loaded from. Raises ModelError when there is none, DataError for a conversation without an answer.
        """
        from ftk_hf_engine.rewarding import rewards  # accelerate is behind it

        rows = [self._rewarded(one) for one in prompts]
        with self._in_use(), self._answering():
            return rewards(self.model, self._run, rows, self._pad, self._placed) if rows else []

    def _rewarded(self, prompt: Prompt) -> Answered:
        """A conversation, or a text as it is. Raises DataError."""
        if prompt.text is None:
            return answered(self.tokenizer, self.template, self._prompts, prompt)
        ids = self._shown([prompt])[0][0]
        return Answered(ids, [False] * len(ids), [])

    def close(self) -> None:
        """Forget the model, so that its memory can be freed. Calling it twice is harmless."""
        self.model = self._batcher = self._alone = None

    def _shown(self, prompts: Sequence[Prompt]) -> list[tuple[list[int], tuple[Media, ...]]]:
        """The tokens and the media of each prompt. Raises DataError for one that is longer than the model reads."""
        if any(prompt.text is not None for prompt in prompts):
            shown = [one for prompt in prompts for one in self._texts(prompt)]
        else:
            shown = self._prompts.shown([(prompt.messages, prompt.tools) for prompt in prompts])
        longest = max(len(ids) for ids, _ in shown)
        if self._limit and longest >= self._limit:
            raise DataError(f"the prompt has {longest} tokens, but the model reads {self._limit}. Shorten it")
        return shown

    def _texts(self, prompt: Prompt) -> list[tuple[list[int], tuple[Media, ...]]]:
        """The tokens of a prompt that is a text. Raises DataError for tokens that the model has not."""
        if prompt.text is None:
            return self._prompts.shown([(prompt.messages, prompt.tools)])
        if isinstance(prompt.text, str):
            return [(self.tokenizer(prompt.text)["input_ids"] or [self._pad], ())]
        if not prompt.text or max(prompt.text) >= len(self.tokenizer):
            raise DataError(f"the prompt has a token that the model has not; it has {len(self.tokenizer)}")
        return [(list(prompt.text), ())]

    def _answer(self, ids: list[int], sampling: Sampling, number: int) -> Answer:
        """The answer to a prompt, the ``number``-th of its call."""
        seed = sampling.seed
        # torch's generator looks at the lower 32 bits of a seed alone
        generator = None if seed is None else torch.Generator().manual_seed((seed + number * 0x9E3779B1) % 2**32)
        stops = (*self._stops, *(stop for stop in sampling.stop if stop))
        pieces = Pieces(self.tokenizer, {*self._ends, *sampling.stop_ids}, stops, sampling.skip_special_tokens)
        room = min(sampling.max_new_tokens, self._limit - len(ids)) if self._limit else sampling.max_new_tokens
        allowed = None if sampling.schema is None else self._shapes.allowed(sampling.schema)
        return Answer(ids, room, Picker(sampling, ids, generator, allowed), pieces, sampling.adapter)

    def _joins(self, shown: Sequence[tuple[list[int], tuple[Media, ...]]], sampling: Sampling) -> bool:
        return self._batcher is not None and sampling.num_beams == 1 and not any(media for _, media in shown)

    def _inputs(self, shown: Sequence[tuple[list[int], tuple[Media, ...]]]) -> dict[str, torch.Tensor]:
        """A batch that is padded on the left, with what it shows."""
        longest = max(len(ids) for ids, _ in shown)
        ids_BT = [[self._pad] * (longest - len(ids)) + ids for ids, _ in shown]
        mask_BT = [[0] * (longest - len(ids)) + [1] * len(ids) for ids, _ in shown]
        made = {"input_ids": torch.tensor(ids_BT), "attention_mask": torch.tensor(mask_BT)}
        return self._placed(made, [media for _, media in shown])

    def _placed(self, batch: dict[str, torch.Tensor], media: Sequence[Sequence[Media]]) -> dict[str, torch.Tensor]:
        """The batch with what it shows, where the model is; pixels and sounds in the type of its weights."""
        if self.media is not None and any(media):
            batch = {**batch, **self.media.encode(batch, media)}
        types = {name: self.model.dtype if one.is_floating_point() else one.dtype for name, one in batch.items()}
        return {name: tensor.to(self.model.device, types[name]) for name, tensor in batch.items()}

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """The model in evaluation mode while anybody is answered; then as it was."""
        with self._turn:
            self._users += 1
            if self._users == 1 and self.model.training:
                self._trained = True
                self.model.eval()
        try:
            yield
        finally:
            with self._turn:
                self._users -= 1
                if self._users == 0 and self._trained:
                    self._trained = False
                    self.model.train()

    @contextmanager
    def _answering(self, adapter: str | None = None) -> Iterator[None]:
        """The model for one step alone, with this adapter."""
        with self._turn:
            if self._named is not None:
                self._named.use(adapter)
            elif adapter is not None:
                raise DataError(f"adapter {adapter}: is not there. lora_modules names those that can be asked for")
            yield


class Following:
    """Whoever is told of an answer; its end is the end of ``using`` the model, too."""

    def __init__(self, follows: Follows, using: ExitStack) -> None:
        self.said, self._ended, self._using = follows.said, follows.ended, using

    def ended(self, result: Reply | BaseException) -> None:
        self._using.close()
        self._ended(result)
