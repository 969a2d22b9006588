"""The values that flow between parts: messages, examples, rows, and what a loaded model or an engine must offer.

Plain frozen values without behaviour. Anything that needs a tensor library is typed ``Any`` here, so that the kernel
imports none; the docstrings say what it is.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from ftk.run import Run

Role = Literal["system", "user", "assistant", "tool"]
Metrics = Mapping[str, float]
"""What a trainer reports: metric name → value, for instance ``{"train_loss": 1.2, "train_runtime": 33.0}``."""


@dataclass(frozen=True, slots=True)
class Text:
    """A stretch of text inside a message that also holds media."""

    text: str


@dataclass(frozen=True, slots=True)
class Media:
    """An image, video or audio inside a message.

    ``source`` is a path, a data URI, or the raw bytes; a video may also be the sources of its frames, each an image.
    """

    kind: Literal["image", "video", "audio"]
    source: str | bytes | tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant makes. ``arguments`` is the parsed JSON object."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, init=False)
class Message:
    """One turn.

    ``trained`` says whether the loss counts this turn; ``None`` leaves it to the run (assistant turns are trained).
    ``weight`` multiplies the loss of its tokens. ``reasoning`` is the thought before the answer, without the model's
    own markers. ``call_id`` is, in a tool turn, the id of the call that it answers.
    """

    role: Role
    content: str | tuple[Text | Media, ...] = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    trained: bool | None = None
    weight: float = 1.0
    call_id: str | None = None

    def __init__(
        self,
        role: Role,
        content: str | tuple[Text | Media, ...] = "",
        reasoning: str | None = None,
        tool_calls: tuple[ToolCall, ...] = (),
        trained: bool | None = None,
        weight: float = 1.0,
        call_id: str | None = None,
    ) -> None:
        # written out, because the one that a frozen dataclass gets takes three times as long and there are so many
        values = self.__dict__
        values["role"], values["content"], values["reasoning"] = role, content, reasoning
        values["tool_calls"], values["trained"] = tool_calls, trained
        values["weight"], values["call_id"] = weight, call_id

    @property
    def text(self) -> str:
        """The content with media left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))


Tools = tuple[Mapping[str, Any], ...]
"""Tool descriptions as JSON Schema functions, in the OpenAI form ``{"type": "function", "function": {...}}``."""


@dataclass(frozen=True, slots=True)
class TextExample:
    """Plain text for pre-training."""

    text: str


@dataclass(frozen=True, slots=True)
class ChatExample:
    """A conversation whose assistant turns are learnt."""

    messages: tuple[Message, ...]
    tools: Tools = ()


@dataclass(frozen=True, slots=True)
class PairExample:
    """One prompt with a better and a worse continuation."""

    messages: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: Tools = ()


@dataclass(frozen=True, slots=True)
class FeedbackExample:
    """A conversation whose last answer somebody liked or did not."""

    messages: tuple[Message, ...]
    desirable: bool
    tools: Tools = ()


Example = TextExample | ChatExample | PairExample | FeedbackExample


class Segment(NamedTuple):
    """A stretch of rendered text. No token may straddle the boundary between two segments.

    weight: what the loss of its tokens is multiplied with. media: the medium that this text stands for; such a segment
    is never cut. literal: what looks like a control token in it is text.
    """

    text: str
    trained: bool
    weight: float = 1.0
    media: Media | None = None
    literal: bool = False


@dataclass(frozen=True)
class DatasetEntry:
    """One data set of a run, as ``dataset_info.json``, a path or an inline mapping describes it.

    ``fields`` are all keys of the entry; ``columns`` and ``tags`` are the two nested ones that converters read.
    ``origin`` says where the entry was written, for errors. ``folder`` is the folder that relative paths start from.
    """

    name: str
    fields: Mapping[str, Any]
    origin: str
    folder: str

    @cached_property
    def columns(self) -> Mapping[str, str]:
        return self.fields.get("columns") or {}

    @cached_property
    def tags(self) -> Mapping[str, str]:
        return self.fields.get("tags") or {}


class Rows(Protocol):
    """Raw rows of one data set, opened lazily by a source."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...

    def at(self, index: int) -> Iterator[Mapping[str, Any]]:
        """The rows from ``index`` (from 0) on, as ``__iter__`` would give them, without parsing those before.

        Optional: without it rows are read and thrown away, so that a resumed stream and parallel work cost more.
        """

    def where(self, index: int) -> str:
        """Where row ``index`` (from 0) stands, for errors: ``identity.json, row 4`` or ``chat.jsonl:17``."""

    def fingerprint(self) -> str:
        """A digest that changes whenever the rows change."""


@dataclass(frozen=True)
class Tokens:
    """The tokenizer of a run and, for models that see or hear, the processor that owns it.

    model_type: the ``model_type`` of the model's config, by which its media processor is found.
    added: the numbers of tokens that this run has added. Adapters let their embeddings learn.
    """

    tokenizer: Any
    processor: Any = None
    model_type: str = ""
    added: tuple[int, ...] = ()


class Loader(Protocol):
    """What the target of a :class:`ftk.ModelLoader` offers (a module with these functions will do).

    It may also have ``load_config(run)``, the model's config from its files, behind ``run.model_config``, and
    ``dequantize(model, run)``, a model with plain weights in place of quantised ones, behind ``run.dequantized``.
    """

    def load_tokenizer(self, run: Run) -> Tokens:
        """The tokenizer (transformers' ``PreTrainedTokenizerBase``) and processor. Reads no weights."""

    def load_model(self, run: Run) -> Any:
        """The base model (``torch.nn.Module``), quantised and with ``run.patch_config`` applied, before any adapter."""


class MediaEncoder(Protocol):
    """What the target of a :class:`ftk.MediaProcessor` builds: ``target(run) -> MediaEncoder``.

    A chat template writes one placeholder for each medium. While rows are made it grows to the tokens that the model
    reads, from the file's header alone; the file itself is read when its batch is put together.
    """

    @property
    def placeholders(self) -> Mapping[str, str]:
        """Kind of medium → what the chat template writes for one, for instance ``{"image": "<image>"}``."""

    def expand(self, media: Sequence[Media]) -> Sequence[str]:
        """For each medium of a row, in order, the text that takes the place of its placeholder.

        A medium may have none when the text of another speaks for it, too: the sound of a video that it stands beside.
        Raises DataError for a file that is missing, broken or of a size the model cannot take.
        """

    def encode(self, batch: Mapping[str, Any], media: Sequence[Sequence[Media]]) -> Mapping[str, Any]:
        """What a batch needs beside its tokens: argument of ``forward`` → tensor.

        batch: ``input_ids`` (B, T) and whatever else the rows have; ``position_ids`` (B, T) when rows are packed, each
        document from 0. media: the media of each of its B rows, in order. A row may have been cut behind some of its
        media or packed with others, so what depends on the conversation is read from the tokens. What is returned goes
        over the batch, so it may bring ``position_ids`` of its own.
        """


@dataclass(frozen=True)
class Sampling:
    """How an engine picks tokens. Values are those of transformers' ``GenerationConfig``.

    stop: texts that end the answer and are left out of it. stop_ids: tokens that end it, beside the template's own.
    presence_penalty, frequency_penalty: taken from the logit of a token that the answer holds, once and for each time
        (OpenAI's definition). logprobs: how many alternatives are told for each token; 0 tells the token's own alone,
        None nothing. adapter: which of the engine's ``adapters`` answers; None is the one of the run.
    schema: a JSON schema that the answer follows, ``{}`` for any JSON object. An engine that cannot do what is asked
        raises DataError before it begins.
    """

    max_new_tokens: int = 1024
    do_sample: bool = True
    temperature: float = 0.95
    top_p: float = 0.7
    top_k: int = 50
    num_beams: int = 1
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    skip_special_tokens: bool = True
    stop_ids: tuple[int, ...] = ()
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None
    adapter: str | None = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Prompt:
    """What an engine answers: a conversation that ends before the assistant's turn.

    text: instead of one, a text or the numbers of tokens that the model goes on with as they are, without a template.
    """

    messages: tuple[Message, ...]
    tools: Tools = ()
    text: str | tuple[int, ...] | None = None


@dataclass(frozen=True)
class Reply:
    """One answer. ``finish`` is ``stop`` when the model ended its turn and ``length`` when it was cut.

    meta: what else an engine tells. ``tokens`` are the numbers of the answer's tokens, up to and with the one that
    ended it, as they were sampled: training on answers wants them, because their text can be written in other tokens.
    ``logprobs``, when asked for, has for each of them a tuple of (token, natural log-probability), its own first, then
    the most likely ones.
    """

    text: str
    finish: Literal["stop", "length"]
    num_prompt_tokens: int
    num_tokens: int
    meta: Mapping[str, Any] = field(default_factory=dict)


class RunningEngine(Protocol):
    """What the target of a :class:`ftk.Engine` builds: ``target(run, model) -> RunningEngine``.

    ``model`` is None when the engine loads the weights itself. To answer for a model in training it then needs
    ``refresh(model)``, which takes over the weights of that model, adapters included.

    Calls may come from several threads at once; an engine that can answers them together. It may also have
    ``adapters``, the names that ``Sampling.adapter`` may give, ``embed(texts) -> list[list[float]]``,
    ``reward(prompts) -> list[float]``, what a reward model gives each conversation that ends with an answer, and
    ``likelihoods(asked) -> list[list[tuple[float, bool]]]``: for each (tokens that are read, tokens that follow), one
    batch, the natural log-probability of each token that follows and whether it is the likeliest. Evaluation asks it.
    """

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Reply]:
        """Answer every prompt, in order."""

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[str, None, Reply]:
        """Answer one prompt piece by piece; the pieces joined are the answer's text. The generator returns the reply.

        Closing it stops the model after its current token.
        """

    def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """The mean log-probability per token (natural log) that the model gives the last turn of each prompt."""

    def close(self) -> None:
        """Give back memory and processes. Calling it twice is harmless."""


class RunningTracker(Protocol):
    """What the target of a :class:`ftk.Tracker` builds: ``target(run) -> RunningTracker``."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Record the metrics of an optimizer step (from 1). Must not block."""

    def close(self, error: BaseException | None) -> None:
        """The run has ended; ``error`` is None on success."""


RowsOf = Iterable[Mapping[str, Any]]
