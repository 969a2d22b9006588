"""A run: the parts of one plan, each made once, when it is first asked for.

Trainers, engines and commands ask the run for what they need, so that all of them get the same model, the same
tokenizer and the same template from the same place.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from ftk import rundir
from ftk.entries import PlannedDataset
from ftk.errors import ConfigError, FtkError, PluginError
from ftk.plan import Plan
from ftk.specs import Adapter, ChatTemplate, Engine, MediaProcessor, ModelLoader, ModelPatch, Quantizer, Spec, Trainer
from ftk.types import Example, Loader, MediaEncoder, Metrics, Rows, RunningEngine, RunningTracker, Tokens

T = TypeVar("T")
log = logging.getLogger("ftk")


class Dataset:
    """One data set of a run: its rows and how each becomes an example."""

    def __init__(self, planned: PlannedDataset, run: Run) -> None:
        self.planned = planned
        self.entry = planned.entry
        self.name = planned.entry.name
        self._run = run

    def open(self) -> Rows:
        """The raw rows, opened by the source. Raises DataError when they cannot be read."""
        return cast("Rows", self.planned.source.load()(self.entry, self._run))

    @cached_property
    def convert(self) -> Callable[[Mapping[str, Any]], Example | None]:
        """Row → example. The converter is pure, so the function may be called in any order and process."""
        target, entry = self.planned.converter.load(), self.entry
        return lambda row: cast("Example | None", target(row, entry))


class Run:
    """What a plan becomes. See :class:`ftk.plan.Plan` for what was chosen.

    ``continues`` is True when the run directory holds an interrupted run that this one goes on with.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._made: dict[str, Any] = {}
        self._record: Record | None = None
        self.continues = False
        self._trackers: list[tuple[str, RunningTracker]] = []

    def options(self, cls: type[T]) -> T:
        """The options of one class. Raises KeyError when no chosen spec carries the class."""
        return cast("T", self.plan.options[cls])

    def value(self, key: str) -> Any:
        """One option that another plugin owns, by name; see :meth:`ftk.plan.Plan.value`."""
        return self.plan.value(key)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """``make()`` the first time, the same object afterwards. Library plugins keep what they share here."""
        if key not in self._made:
            self._made[key] = make()
        return cast("T", self._made[key])

    @cached_property
    def output_dir(self) -> Path:
        folder = self.plan.value("output_dir")
        if not folder:
            raise ConfigError("output_dir: not set")
        return Path(folder)

    @property
    def seed(self) -> int:
        return int(self.plan.value("seed"))

    def record(self, **facts: Any) -> None:
        """Add facts to ``run.json``, for instance ``data={...}``; nothing happens when no run directory is written."""
        if self._record is not None:
            self._record.update(**facts)

    # What the run is made of, in the order in which a training run asks for it.

    @cached_property
    def model_path(self) -> str:
        """Folder or hub name of the base model, after a loader's ``locate`` has brought it here."""
        name = str(self.plan.value("model_name_or_path"))
        spec = cast("ModelLoader", self._chosen("model_loader"))
        return str(spec.load("locate")(name, self)) if spec.locate else name

    @cached_property
    def _loader(self) -> Loader:
        spec = cast("ModelLoader", self._chosen("model_loader"))
        if not spec.target:  # the plan has seen that there is one behind it
            spec = cast("ModelLoader", self.plan.registry.default("model_loader"))
        return cast("Loader", spec.load())

    @cached_property
    def tokens(self) -> Tokens:
        tokens = self._loader.load_tokenizer(self)
        for spec in self.plan.chosen.get("model_patch", ()):
            if cast("ModelPatch", spec).tokens_target:
                tokens = spec.load("tokens_target")(tokens, self)
        return tokens

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, a transformers ``PreTrainedTokenizerBase``."""
        return self.tokens.tokenizer

    @property
    def processor(self) -> Any:
        """The processor of a model that sees or hears, else None."""
        return self.tokens.processor

    @cached_property
    def model_config(self) -> Any:
        """The base model's config as its files have it (transformers' ``PreTrainedConfig``); not to be changed.

        None when the loader has no ``load_config``.
        """
        read = getattr(self._loader, "load_config", None)
        return read(self) if read else None

    @cached_property
    def media(self) -> MediaEncoder | None:
        """What turns images, videos and sounds into tokens and tensors for this model.

        None when no installed plugin serves its ``model_type``, or when the run does not use the kind.
        Raises PluginError when several plugins serve it.
        """
        kind, registry, model_type = MediaProcessor.kind, self.plan.registry, self.tokens.model_type
        if kind not in self.plan.chosen:
            return None
        declared = [(cast("MediaProcessor", spec), one) for one in registry.records for spec in one.specs]
        serving = {spec.name: one for spec, one in declared if spec.kind == kind and model_type in spec.model_types}
        if len(serving) > 1:
            who = ", ".join(f"{name} ({one.who})" for name, one in serving.items())
            raise PluginError(f"several media processors serve {model_type} models: {who}. Uninstall all but one")
        if not serving:
            return None
        spec = registry.find(kind, *serving)
        self._take(spec)
        return cast("MediaEncoder", spec.load()(self))

    def _take(self, spec: Spec) -> None:
        """Let a spec that the model has chosen take part in the run."""
        self.plan = self.plan.taking(spec)
        if self._record is not None:
            self.record(**facts(self.plan))

    @property
    def template(self) -> ChatTemplate:
        """The chosen chat template. ``ftk-data`` turns it into text."""
        return cast("ChatTemplate", self._chosen("template"))

    def datasets(self, split: str) -> list[Dataset]:
        """The data sets of ``train`` or ``eval``."""
        return [Dataset(planned, self) for planned in self.plan.datasets.get(split, ())]

    def rows(self, split: str) -> Any:
        """The rows of ``train`` or ``eval`` as the trainer wants them, made by its ``rows`` target."""
        trainer = cast("Trainer", self._chosen("trainer"))
        if not trainer.rows:
            raise PluginError(f"{trainer.id} declares no rows")
        return self.once(f"rows:{split}", lambda: trainer.load("rows")(self, split))

    def quantization_config(self) -> Any:
        """What the chosen quantizer hands to ``from_pretrained``; None without one."""
        spec = self.plan.one("quantizer")
        return spec.load()(self) if spec else None

    def stored_quantization(self, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        """The quantization config of a model whose files are quantised already, as this run wants it.

        The quantizer that answers for its ``quant_method`` takes part in the run from here on, unless it gives the
        model plain weights (``dequantize``). What no plugin answers for comes back as it is. Raises FtkError for a
        missing plugin or back end, and for what excludes it.
        """
        method, kind, registry = str(stored.get("quant_method")), Quantizer.kind, self.plan.registry
        serving = [name for name, one in registry.specs(kind).items() if method in cast("Quantizer", one).methods]
        if not serving:
            registry.lacks(f"stored:{method}", f"a model whose files are quantised with {method}")
            return stored
        spec = cast("Quantizer", registry.find(kind, serving[0]))
        if spec.stored_target:
            stored = cast("Mapping[str, Any]", spec.load("stored_target")(self, stored))
        if not stored.get("dequantize"):
            self._take(spec)
        return stored

    def dequantized(self, model: Any) -> Any:
        """A model of the loader with plain weights in place of quantised ones, into which adapters can be merged.

        Raises PluginError when the loader cannot do that.
        """
        make = getattr(self._loader, "dequantize", None)
        if make is None:
            raise PluginError("this model loader cannot make plain weights of quantised ones")
        return make(model, self)

    def patch_config(self, config: Any) -> Any:
        """The model's config with every chosen patch applied. Loaders call it before they load."""
        for spec in self.plan.chosen.get("model_patch", ()):
            if cast("ModelPatch", spec).config_target:
                config = spec.load("config_target")(config, self)
        return config

    def model(self, *, trainable: bool) -> Any:
        """The model, loaded, patched and adapted. ``trainable`` says whether it is to learn or only to answer."""
        return self.once(f"model:{trainable}", lambda: self._make_model(trainable))

    def _make_model(self, trainable: bool) -> Any:
        model = self._loader.load_model(self)
        for spec in self.plan.chosen.get("model_patch", ()):
            if spec.target:
                model = spec.load()(model, self)
        adapter = self.plan.one("adapter")
        return adapter.load()(model, self, trainable) if adapter else model

    def optimizer(self, model: Any) -> Any:
        """The optimizer of the chosen plugin, or None for the trainer's own."""
        spec = self.plan.one("optimizer")
        return spec.load()(model, self) if spec else None

    def engine(self, model: Any = None) -> RunningEngine:
        """The chosen inference engine on ``model``, or on the run's own model when none is given."""
        spec = cast("Engine", self._chosen("engine"))
        if model is None and spec.loads_model:
            model = self.model(trainable=False)
        return cast("RunningEngine", spec.load()(self, model))

    def _chosen(self, kind: str) -> Spec:
        spec = self.plan.one(kind)
        if spec is None:
            raise PluginError(f"{self.plan.config}: this run has no {kind}")
        return spec

    # Watching it.

    def emit(self, hook: str, **arguments: Any) -> None:
        """Call an event hook of the plugins that the plan names. An observer that raises is reported, not fatal."""
        active = {record.id for record in self.plan.records}
        for implementation in getattr(self.plan.registry.manager.hook, hook).get_hookimpls():
            if implementation.plugin_name not in active:
                continue
            values = {"run": self, **arguments}
            try:
                implementation.function(*(values[name] for name in implementation.argnames))
            except Exception as error:  # an observer must not end a run
                log.warning("%s: %s failed: %s: %s", implementation.plugin_name, hook, type(error).__name__, error)

    def log(self, step: int, metrics: Metrics) -> None:
        """Report the metrics of an optimizer step (from 1) to trackers and observers."""
        for name, tracker in self._trackers:
            with _no_end_of_the_run(name):
                tracker.log(step, metrics)
        self.emit("ftk_step_finished", step=step, metrics=metrics)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Start the trackers, in the first process, and the observers, and tell them how the block ended."""
        for spec in self.plan.chosen.get("tracker", ()) if os.environ.get("RANK", "0") == "0" else ():
            with _no_end_of_the_run(spec.name):
                self._trackers.append((spec.name, spec.load()(self)))
        self.emit("ftk_run_started")
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            for name, tracker in self._trackers:
                with _no_end_of_the_run(name):
                    tracker.close(error)
            self.emit("ftk_run_finished", error=error)


@contextmanager
def _no_end_of_the_run(tracker: str) -> Iterator[None]:
    """What a tracker raises when it starts, logs or closes is reported, and nothing more."""
    try:
        yield
    except Exception as error:
        log.warning("tracker %s failed: %s: %s", tracker, type(error).__name__, error)


class Record:
    """The ``run.json`` of a run in progress."""

    def __init__(self, run: Run) -> None:
        plan = run.plan
        self.path = run.output_dir / rundir.RECORD
        self.content: dict[str, Any] = {
            "status": "running",
            "started": rundir.now(),
            "config": plan.config,
            "options": rundir.resolved_options(plan),
            **facts(plan),
            "seed": run.seed,
            "data": {},
            "files": [],
        }

    def update(self, **facts: Any) -> None:
        """Add facts and write the file; of several processes the first one does."""
        self.content.update(rundir.plain(facts))
        if os.environ.get("RANK", "0") != "0":
            return
        rundir.write_text(self.path, json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")


def facts(plan: Plan) -> dict[str, Any]:
    """What the record says of the features that take part."""
    return {
        "chosen": {kind: [spec.name for spec in specs] for kind, specs in plan.chosen.items() if specs},
        "plugins": {record.distribution: record.version for record in plan.records},
        "provides": {spec.id: plan.registry.record_of(spec).who for specs in plan.chosen.values() for spec in specs},
        "libraries": rundir.library_versions(record.distribution for record in plan.records),
    }


def execute(plan: Plan, run: Run | None = None) -> Metrics:
    """Run a plan's trainer in its run directory and return what it reports.

    run: the plan's, made beforehand by who prepares its parts or looks at them afterwards.
    Raises FtkError for whatever the user can mend; nothing is written before the run directory has been checked.
    """
    run = run or Run(plan)
    trainer = cast("Trainer", run.plan.one("trainer"))
    continued = rundir.prepare(plan, run.output_dir)
    rundir.make(run.output_dir)
    record = Record(run)
    before = {path.name for path in run.output_dir.iterdir()}
    run._record, run.continues = record, continued
    record.update()
    try:
        with run.watched():
            metrics = cast("Metrics", trainer.load()(run))
    except BaseException as error:
        status = error.status if isinstance(error, FtkError) else "interrupted"
        record.update(status=status, ended=rundir.now(), error=str(error))
        raise
    files = sorted(path.name for path in run.output_dir.iterdir() if path.is_file() and path.name not in before)
    adapter = cast("Adapter | None", plan.one("adapter"))
    record.update(
        status="finished",
        ended=rundir.now(),
        metrics=metrics,
        files=sorted({*files, *record.content["files"]} - {rundir.RECORD}),
        result=record.content.get("result", adapter.saves if adapter else "model"),
    )
    return metrics


LAUNCHED = "FTK_LAUNCHED"


def execute_or_launch(plan: Plan, argv: list[str]) -> int:
    """Execute a plan here, or hand its command line to the chosen launcher, which starts this again in its processes.

    Returns the exit code.
    """
    launcher = plan.one("launcher")
    if launcher and not os.environ.get(LAUNCHED):
        return int(launcher.load()(Run(plan), argv))
    execute(plan)
    return 0
