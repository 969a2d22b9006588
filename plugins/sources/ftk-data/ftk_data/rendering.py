"""What every chat template offers, and how a run gets its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from ftk import ChatTemplate, Message, Segment

from ftk_data.conversations import UNSET, JinjaRenderer
from ftk_data.direct import quick
from ftk_data.formats import jinja_source, tool_format_of, without_marks
from ftk_data.options import TemplateOptions
from ftk_data.tools import ToolFormat

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk.types import Tools

T = TypeVar("T")
Row = list[Segment]


class Renderer(Protocol):
    """Turns conversations into text."""

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end an answer; generation stops at any of them."""

    def render(self, messages: Sequence[Message], tools: Tools = (), *, generation: bool = False) -> list[Row]:
        """The rows that a conversation is trained as: one, or more when the template rewrites history.

        A row is a list of segments, trained and untrained in turn; a trained one is the text of one answer with its
        stop token. Answers with ``trained=False`` are not trained; a conversation without any trained answer is one
        untrained segment. With ``generation`` there is one row of one segment, and it ends with what starts the
        assistant's turn. Raises DataError when the template cannot write the conversation.
        """

    def prompt_text(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """The text that a model continues with its answer. Encode it with ``add_special_tokens=False``."""

    def read(self, text: str, tools: Tools = ()) -> Message:
        """A model's answer taken apart into content, reasoning and calls; what cannot be told apart stays content."""

    def jinja(self) -> str:
        """The Jinja chat template that renders the same, to be saved with the model."""


def make_renderer(run: Run) -> Renderer:
    """The renderer of the run's template: what its target makes, or its declared formats."""
    spec = run.template
    if spec.target:
        return cast("Renderer", spec.load()(run))
    chosen = cast("ToolFormat | None", run.plan.one("tool_format"))
    options = template_options(run)
    made = declared(spec, run.tokenizer, options, thinking_of(run), chosen)
    return cast("Renderer", quick(made, spec, options.default_system, made.preserve_thinking))


def declared(
    spec: ChatTemplate,
    tokenizer: Any,
    options: TemplateOptions,
    thinking: Any = UNSET,
    tool_format: ToolFormat | None = None,
) -> JinjaRenderer:
    """The renderer of a template's declared formats. ``thinking`` as in :class:`JinjaRenderer`.

    tool_format: the dialect instead of the template's own.
    """
    tools = tool_format_of(spec, tool_format)
    source = jinja_source(spec, options.default_system, tools)
    return JinjaRenderer(
        source,
        tokens=special_tokens(tokenizer),
        special=frozenset(tokenizer.get_added_vocab()),
        thinking=thinking if spec.thinking else UNSET,
        preserve_thinking=options.preserve_thinking and bool(spec.thinking),
        marked=not spec.thinking and "generation %}" in source,
        saved=without_marks(source),
        stop_words=spec.stop,
        knows_tools=bool(tools or spec.source),
        apart=bool(spec.thinking),
        dialects=(tools,) if tools else (),
    )


def special_tokens(tokenizer: Any) -> Mapping[str, str]:
    """The special tokens under the names that chat templates use: ``bos_token``, ``eos_token`` …"""
    return {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}


def template_options(run: Run) -> TemplateOptions:
    """The template options of a run, also when no chosen spec carries them."""
    return options_of(run, TemplateOptions)


def options_of(run: Run, cls: type[T]) -> T:
    """The options of a class, or its defaults in a run where no chosen spec carries it."""
    return cast("T", run.plan.options.get(cls) or cls())


def thinking_of(run: Run) -> Any:
    """``enable_thinking`` as the YAML sets it, UNSET when it does not: then a template's own default holds."""
    given = "enable_thinking" in run.plan.given
    return template_options(run).enable_thinking if given else UNSET
