"""Specs: what a plugin declares. Frozen values that name their code as ``"module:attr"``.

Declaring a spec imports nothing; the kernel imports the target when a run first uses it. Everything the kernel must
know to choose, check and refuse a feature is a field here, so that it never asks a feature for its name.

Every start of ftk makes these classes, so they leave out the dataclass methods that nobody calls (eq, repr): each costs
a compilation.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any, ClassVar

from ftk.errors import PluginError


@dataclass(frozen=True, eq=False, repr=False)
class Spec:
    """One feature.

    name: what the YAML says to get it; lower case letters, digits, ``-``, ``_`` and ``.``, unique within its kind.
    target: the code, ``"ftk_lora.adapter:apply"``. Imported on first use.
    summary: one line for ``ftk plugins list``.
    options: the option classes (:func:`ftk.options`) that this feature reads, its own or a library plugin's.
    reads: keys owned elsewhere that this feature honours, so that they are not reported as having no effect.
    switch: the option that turns the feature on, for kinds without a selector; with one, where that names none, and
        beside what it names where it takes many.
    default: chosen when the YAML names none of its kind; of a kind without a selector, in every run.
    requires: import names that must be installed, checked without importing: ``("vllm",)``.
    extra: the extra that brings them: ``pip install "ftk-vllm[backend]"``.
    excludes, needs: conditions on the rest of the run: ``"adapter:lora"``, ``"quantizer"`` for any of a kind,
        ``"use_galore"``, ``"packing=true"``, or ``"adapter_name_or_path>1"`` for more than one.
    """

    kind: ClassVar[str] = ""

    name: str
    target: str = ""
    summary: str = ""
    options: type | tuple[type, ...] = ()
    reads: tuple[str, ...] = ()
    switch: str | None = None
    default: bool = False
    requires: tuple[str, ...] = ()
    extra: str | None = None
    excludes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<{self.id}>"

    @property
    def option_classes(self) -> tuple[type, ...]:
        return self.options if isinstance(self.options, tuple) else (self.options,)

    @property
    def id(self) -> str:
        """``adapter:lora``, the way conditions and listings write a spec."""
        return f"{self.kind}:{self.name}"

    def load(self, field: str = "target") -> Any:
        """Import and return what ``field`` names. The only place where a plugin may pull in a back end."""
        return load_target(getattr(self, field), self.id)


def load_target(target: str, who: str) -> Any:
    """Import ``"module:attr"`` (or a bare module) for ``who``.

    Raises PluginError when the module cannot be imported or lacks the attribute.
    """
    try:
        with _collector_paused():
            return resolve_name(target)
    except (ImportError, AttributeError) as cause:
        raise PluginError(f"{who}: cannot import {target}: {type(cause).__name__}: {cause}") from cause


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Importing a back end makes objects that stay, so looking for garbage among them again and again is time lost."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True, eq=False, repr=False)
class ModelLoader(Spec):
    """Loads base models. Target: a module or object with ``load_tokenizer(run)`` and ``load_model(run)``.

    schemes: answers for ``model_name_or_path: SCHEME://...``.
    locate: instead of a target, code ``locate(name, run) -> folder`` that brings the files to a local folder, which the
        default loader then loads; so a new hub needs no loader of its own.
    """

    kind: ClassVar[str] = "model_loader"
    schemes: tuple[str, ...] = ()
    locate: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Quantizer(Spec):
    """Target: ``configure(run) -> quantization config`` that the loader hands to ``from_pretrained``.

    bits: the values of ``quantization_bit`` that it can do; none when it only opens what is quantised already.
    methods: the ``quant_method`` of models whose files are quantised already and which it answers for. No key asks for
        it then: the run takes it when it meets such a model, and refuses what excludes it.
    stored_target: ``adjust(run, stored) -> stored``, the quantization config of such a model as this run wants it; with
        ``dequantize: true`` in it the model gets plain weights and nothing is excluded. What is not chosen by a key has
        no options of its own in the run, so it reads them with ``run.value``.
    gpu: its back end needs an accelerator; loaders say so before anything is read.
    """

    kind: ClassVar[str] = "quantizer"
    bits: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    stored_target: str | None = None
    gpu: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class ModelPatch(Spec):
    """Target: ``patch(model, run) -> model``, after loading and before the adapter.

    tokens_target: ``patch(tokens, run) -> tokens`` (:class:`ftk.Tokens`), before anything is tokenised.
    config_target: ``patch(config, run) -> config``, before loading.
    """

    kind: ClassVar[str] = "model_patch"
    tokens_target: str | None = None
    config_target: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Adapter(Spec):
    """Target: ``apply(model, run, trainable) -> model``; afterwards ``requires_grad`` is final.

    With ``trainable=False`` it only loads what ``adapter_name_or_path`` names, for inference.
    saves: what a finished run leaves: ``adapter`` (loaded on top of the base model) or ``model`` (loaded instead).
    """

    kind: ClassVar[str] = "adapter"
    saves: str = "adapter"


class Optimizer(Spec):
    """Target: ``build(model, run) -> torch.optim.Optimizer``. Chosen by its ``switch``, at most one."""

    kind: ClassVar[str] = "optimizer"


@dataclass(frozen=True, eq=False, repr=False)
class DatasetSource(Spec):
    """Target: ``open_rows(entry, run) -> Rows``. Chosen by the field of the entry that it answers for.

    field: the entry's field, for instance ``file_name``.
    schemes: a data set that is no name in ``dataset_info.json`` becomes ``{field: text}`` when its scheme is listed;
        the empty scheme ``""`` answers for plain paths.
    entry_fields: further fields of an entry that it reads.
    order: among several that match one entry, the lowest wins.
    all_names: the value of ``dataset_dir`` with which every name that is no file becomes ``{field: name}``.
    info: code ``info(dataset_dir, value) -> what a dataset_info.json holds``, for each ``dataset_dir`` that begins with
        ``info_prefix``; ``value(key)`` gives the run's options. It raises ConfigError.
    """

    kind: ClassVar[str] = "source"
    field: str = ""
    schemes: tuple[str, ...] = ()
    entry_fields: tuple[str, ...] = ()
    order: int = 100
    all_names: str = ""
    info: str | None = None
    info_prefix: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class DatasetConverter(Spec):
    """Target: ``convert(row, entry) -> Example | None``, pure. None drops a row that holds nothing to learn.

    entry_fields: fields of an entry that it reads, beside ``columns`` and ``tags``.
    columns, tags: the column and tag names that an entry may give.
    """

    kind: ClassVar[str] = "converter"
    entry_fields: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class ChatTemplate(Spec):
    """How messages become text. A value; ``target`` is only for templates that a format cannot express.

    Formats hold ``{content}``, and ``{bos}`` / ``{eos}`` for the tokenizer's own. What a turn trains is its
    ``assistant`` format up to and with the stop token; ``assistant_end`` follows it and is not trained.

    prefix: before everything, once.
    system, user, tool: formats of those turns. Without ``tool`` a conversation with tool results is refused.
    tool_group: what is written before and after a run of tool turns, for families that put several into one turn.
    system_note: what the first system content always begins with, for instance dates.
    trim: strip the content of every turn.
    generation: what the assistant's turn starts with; not trained.
    assistant: the assistant's turn after that, up to and with its stop token. All of it is trained.
    assistant_end: what follows the stop token when a template writes more, for instance a newline; not trained.
    system_in_user: the format of a system text that stands at the start of the first user content, for families without
        a system turn; ``system`` is then unused.
    default_system: the system text when the conversation brings none; None writes no system turn, ``""`` an empty one.
    stop: the strings that end an answer, the first one trained.
    thinking: what stands before and after reasoning, when the family has it: ``("<think>\\n", "\\n</think>\\n\\n")``.
        Answers before the last question are written without; the last answer always has both, if around nothing.
        A family without it gets reasoning as part of the content, between ``<think>`` marks.
    tool_format: ``"module:attr"`` of a ``ftk_data.ToolFormat``; without it a conversation with tools is refused.
    model_types: the ``model_type`` of the models it fits; used when a model brings no template of its own.
    media: kind of medium → what a message has in the place of one, for instance ``{"image": "<image>"}``.
    source: ``"package:file.jinja"``, a whole chat template instead of the formats, for what they cannot express. Beside
        what all chat templates see it gets ``default_system``; with ``{% generation %}`` around what answers train.
    target: ``render(run) -> Renderer`` instead of both.
    """

    kind: ClassVar[str] = "template"
    prefix: str = ""
    system: str = "{content}"
    user: str = "{content}"
    tool: str | None = None
    tool_group: tuple[str, str] = ("", "")
    system_note: str = ""
    trim: bool = False
    generation: str = ""
    assistant: str = "{content}{eos}"
    assistant_end: str = ""
    system_in_user: str | None = None
    default_system: str | None = None
    stop: tuple[str, ...] = ()
    thinking: tuple[str, str] | None = None
    tool_format: str | None = None
    model_types: tuple[str, ...] = ()
    media: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class MediaProcessor(Spec):
    """Target: ``build(run) -> MediaEncoder``: expands placeholders and turns files into tensors for some models.

    model_types: the ``model_type`` of the models that it serves. One model has one processor.

    What ``encode`` returns goes over the batch, so it may take the tokens of media out of ``labels``. Beside the three
    members of the protocol an encoder may have ``fingerprint()``, a text that changes with whatever else its tokens
    depend on, for the cache of rows; and ``blanks``, a medium of each kind that has a tower to go through, for batches
    that show none of the kind while other processes' do.
    """

    kind: ClassVar[str] = "media"
    model_types: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Trainer(Spec):
    """Target: ``train(run) -> Metrics``. Chosen by ``stage``.

    examples: which examples it eats: ``text``, ``chat``, ``pairs``, ``feedback`` or ``prompts``.
    rows: ``"module:attr"`` of ``build(run, split) -> rows`` behind ``run.rows(split)``.
    uses: the kinds that it takes part in; the others' keys have no effect in its runs.
    uses_when: further kinds, each with the condition under which it uses them: ``{"engine": "predict_with_generate"}``.
    """

    kind: ClassVar[str] = "trainer"
    examples: str = "chat"
    rows: str | None = None
    uses_when: Mapping[str, str] = field(default_factory=dict)
    uses: tuple[str, ...] = (
        "model_loader", "quantizer", "model_patch", "adapter", "optimizer", "source", "converter", "template",
        "media", "tracker", "launcher",
    )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Engine(Spec):
    """Target: ``build(run, model) -> RunningEngine``. Chosen by ``infer_backend``.

    loads_model: False when the engine loads the weights itself; then ``model`` is None.
    """

    kind: ClassVar[str] = "engine"
    loads_model: bool = True


class Tracker(Spec):
    """Target: ``start(run) -> RunningTracker``. Chosen by ``report_to``, any number."""

    kind: ClassVar[str] = "tracker"


class Launcher(Spec):
    """Target: ``launch(run, argv) -> exit code``: starts ``ftk run`` again in as many processes as it is told."""

    kind: ClassVar[str] = "launcher"


@dataclass(frozen=True, eq=False, repr=False)
class Command(Spec):
    """Target: a click command. Becomes ``ftk NAME``; imported when called.

    uses: the kinds that its runs choose, for instance ``("model_loader", "adapter", "template", "engine")``.
    run_flag: it is also a flag of ``ftk run``, for what is done with a run instead of running it: ``ftk run CONFIG
        --NAME`` is ``ftk NAME CONFIG``. The flag stands first, last, or before another option.
    """

    kind: ClassVar[str] = "command"
    uses: tuple[str, ...] = ()
    run_flag: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Kind:
    """What the kernel knows of a kind.

    hook: its declaration hook. selector: the option that names one (or several, when ``many``).
    switch: the option that must be on for any of this kind to be taken. required: a run that uses the kind needs one.
    prefix: how distributions of this kind are named after ``ftk-``, to guess which one is missing.
    within: for kinds that a plugin declares: the kind (``"template"``) or feature (``"adapter:lora"``) of a run in
        which this one takes part.
    own_code: beside names the selector takes ``file.py:function``, which the plugin that opens the kind loads itself.
    by_model: no key names one: the run finds its own when it knows the model. Until then the options of all of the
        kind can be set and none is chosen.
    """

    spec: type[Spec]
    hook: str
    selector: str | None = None
    switch: str | None = None
    required: bool = False
    many: bool = False
    prefix: str = ""
    within: str = ""
    own_code: bool = False
    by_model: bool = False


KINDS: Mapping[str, Kind] = {
    kind.spec.kind: kind
    for kind in (
        Kind(ModelLoader, "ftk_model_loaders", selector="model_loader", required=True),
        Kind(Quantizer, "ftk_quantizers", selector="quantization_method", switch="quantization_bit"),
        Kind(ModelPatch, "ftk_model_patches", many=True),
        Kind(Adapter, "ftk_adapters", selector="finetuning_type", required=True),
        Kind(Optimizer, "ftk_optimizers"),
        Kind(DatasetSource, "ftk_dataset_sources"),
        Kind(DatasetConverter, "ftk_dataset_converters"),
        Kind(ChatTemplate, "ftk_chat_templates", selector="template", required=True, prefix="template-"),
        Kind(MediaProcessor, "ftk_media_processors", prefix="media-", by_model=True),
        Kind(Trainer, "ftk_trainers", selector="stage", required=True),
        Kind(Engine, "ftk_inference_engines", selector="infer_backend", required=True),
        Kind(Tracker, "ftk_trackers", selector="report_to", many=True),
        Kind(Launcher, "ftk_launchers", selector="launcher"),
        Kind(Command, "ftk_commands", many=True),
    )
}
