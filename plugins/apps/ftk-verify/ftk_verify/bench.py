"""The user's run on the bench: the same plan with few rows and steps, in a temporary folder.

Every change is a word of the command line, so that a run here is one that the user could type.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from itertools import count, islice
from os import devnull
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

import torch
from ftk import DataError, FtkError, Media, Message, Metrics, PluginError
from ftk.opening import open_run, plan_run
from ftk.plan import Plan
from ftk.run import Run, execute
from ftk.types import Example
from ftk_training.checks import NotApplicable, Trained, trainer_of
from torch.optim.optimizer import register_optimizer_step_pre_hook

if TYPE_CHECKING:
    from torch import nn

ALONE: dict[str, Any] = {
    "overwrite_output_dir": False, "resume_from_checkpoint": None, "report_to": "none", "launcher": None,
    "push_to_hub": False, "do_train": True, "do_eval": False, "do_predict": False, "predict_with_generate": False,
    "eval_dataset": None, "eval_strategy": "no", "eval_on_start": False, "val_size": 0, "save_strategy": "no",
    "load_best_model_at_end": False, "metric_for_best_model": None, "early_stopping_steps": None,
    "logging_strategy": "steps", "logging_steps": 1, "plot_loss": False, "disable_tqdm": True, "deepspeed": None,
    "fsdp": None, "streaming": False, "tokenized_path": None, "preprocessing_num_workers": 1,
    "dataloader_num_workers": 0, "dataloader_persistent_workers": False, "dataloader_prefetch_factor": None,
}  # fmt: skip
"""What every run on the bench sets: nothing is sent anywhere, kept, evaluated or started beside it."""

UNPACKED: dict[str, Any] = {"packing": False, "neat_packing": False}
EXACT, MIXED, COARSE = 1e-4, 2e-2, 1e-1
"""Shares up to which two ways to compute one number may differ: in float32, in 16 bits (bfloat16 keeps 8 of a number,
and a few dozen roundings follow each other), and with quantised weights, whose back ends compute differently while they
train and while they answer."""
MOST_EXAMPLES = 200


class Bench:
    """See :class:`ftk_training.checks.Bench`. ``config`` and ``words`` are those of ``ftk run``."""

    def __init__(self, config: str, words: Sequence[str], folder: Path) -> None:
        self.config, self.words, self.folder = config, tuple(words), folder
        self.plan = plan_run(config, words)
        self._numbers = count(1)

    def changed(self, settings: dict[str, Any]) -> list[str]:
        """The words of the command line with some settings more; those that nobody knows are left out."""
        known = self.plan.registry.options
        return [*self.words, *(f"--{key}={json.dumps(value)}" for key, value in settings.items() if key in known)]

    def plan_with(self, folder: Path, **settings: Any) -> Plan:
        """The user's plan with ``settings`` over it. Raises NotApplicable when they do not go together."""
        try:
            return plan_run(self.config, self.changed({**ALONE, "output_dir": str(folder), **settings}))
        except FtkError as error:
            raise NotApplicable(f"the run refuses what this needs: {' '.join(str(error).split())}") from error

    @property
    def tolerance(self) -> float:
        known = self.plan.registry.options
        mixed = any(self.plan.value(key) for key in ("bf16", "fp16", "pure_bf16") if key in known)
        return COARSE if self.plan.chosen.get("quantizer") else MIXED if mixed else EXACT

    @property
    def examples_kind(self) -> str:
        """What the stage eats: ``chat``, ``pairs`` …"""
        return str(getattr(self.plan.one("trainer"), "examples", ""))

    def per_dataset(self, num_rows: int) -> int:
        """How many rows of each data set make up ``num_rows``."""
        return -(-num_rows // max(1, len(self.plan.datasets.get("train", ()))))

    def rows(self, num_rows: int, **settings: Any) -> Any:
        settings = {"max_samples": self.per_dataset(num_rows), **UNPACKED, **settings}
        with muted():
            return Run(self.plan_with(self.folder / "rows", **settings)).rows("train")

    def train(
        self,
        *,
        steps: int = 1,
        num_rows: int = 4,
        still: bool = False,
        prepare: Callable[[Any], None] | None = None,
        look: Callable[[Trained], Any] | None = None,
        **settings: Any,
    ) -> Trained:
        folder = self.folder / f"run-{next(self._numbers)}"
        settings = {"max_steps": steps, "max_samples": self.per_dataset(num_rows), **settings}
        run = BenchRun(self.plan_with(folder, **settings), self._preparing(still, prepare))
        trained = Trained(run, folder)
        with muted(), self._first_gradients(trained):
            execute(run.plan, run)
        trained.losses = [metrics["loss"] for _, metrics in run.logged if "loss" in metrics]
        trained.trainer = trainer_of(run)
        trained.weights = {name: _kept(weight) for name, weight in _learning(run)}
        trained.seen = look(trained) if look else None
        trained.run, trained.trainer = cast("Run", None), None
        del run
        gc.collect()  # the model goes before the next one is loaded
        return trained

    def _preparing(self, still: bool, prepare: Callable[[Any], None] | None) -> Callable[[Any], None]:
        def both(model: Any) -> None:
            if still:
                hold_still(model)
            if prepare:
                prepare(model)

        return both

    @contextmanager
    def _first_gradients(self, trained: Trained) -> Iterator[None]:
        def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            if not trained.gradients:
                weights = [(name, weight) for name, weight in _learning(trained.run) if weight.grad is not None]
                trained.gradients = {name: _kept(weight.grad) for name, weight in weights}

        handle = register_optimizer_step_pre_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def answering(self, source: str | Path | None = None, **settings: Any) -> Run:
        words = [*self.changed({"report_to": "none", "launcher": None, **settings}), *self.media_words()]
        try:
            return open_run("verify", str(source or self.config), words if source is None else [], base=source is None)
        except PluginError as error:
            raise NotApplicable(f"nothing answers here: {error}") from error

    def media_words(self) -> list[str]:
        """Where the media of the data lie, for runs that answer and know no data set to look beside."""
        if "media_dir" not in self.plan.registry.options:
            return []
        if given := self.plan.value("media_dir"):
            near = Path(self.plan.config).parent / given
            return [f"--media_dir={(near if near.is_dir() else Path(given)).absolute()}"]
        for one in self.plan.datasets.get("train", ()):
            file = one.entry.fields.get(one.source.field)
            if isinstance(file, str):
                return [f"--media_dir={(Path(one.entry.folder) / file).parent.absolute()}"]
        return []

    def examples(self) -> Iterator[Example]:
        run = Run(self.plan_with(self.folder / "rows"))
        for dataset in run.datasets("train"):
            for row in islice(dataset.open(), MOST_EXAMPLES):
                try:
                    example = dataset.convert(row)
                except DataError:
                    continue  # rows that a run refuses are the data report's to tell
                if example is not None:
                    yield _without_folder(example, Path(dataset.entry.folder))

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _without_folder(example: Example, folder: Path) -> Example:
    """The example with the paths of its media as the data has them: converters put the data set's folder in front."""

    def shorter(part: Any) -> Any:
        if isinstance(part, Media) and isinstance(part.source, str) and Path(part.source).is_relative_to(folder):
            return replace(part, source=str(Path(part.source).relative_to(folder)))
        return part

    def each(messages: tuple[Message, ...]) -> tuple[Message, ...]:
        contents = [(one, one.content) for one in messages]
        return tuple(
            one if isinstance(content, str) else replace(one, content=tuple(map(shorter, content)))
            for one, content in contents
        )

    fields = [name for name in ("messages", "chosen", "rejected") if hasattr(example, name)]
    return replace(example, **{name: each(getattr(example, name)) for name in fields})


class BenchRun(Run):
    """A run that hands its model over before it learns, and remembers what it reports."""

    def __init__(self, plan: Plan, prepare: Callable[[Any], None]) -> None:
        super().__init__(plan)
        self.logged: list[tuple[int, Metrics]] = []
        self.learning: Any = None
        self._prepare = prepare

    def model(self, *, trainable: bool) -> Any:
        model = super().model(trainable=trainable)
        if trainable and self.learning is None:
            self.learning = model
            self._prepare(model)
        return model

    def log(self, step: int, metrics: Metrics) -> None:
        self.logged.append((step, dict(metrics)))
        super().log(step, metrics)


def _learning(run: Any) -> list[tuple[str, torch.nn.Parameter]]:
    model = getattr(run, "learning", None)
    return [] if model is None else [(name, one) for name, one in model.named_parameters() if one.requires_grad]


def _kept(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)


def hold_still(model: nn.Module) -> None:
    """Put a model into evaluation mode for good: no dropout, no noise. A copy of it is held still by itself."""
    model.eval()
    model.train = MethodType(_as_it_is, model)  # type: ignore[method-assign]


def _as_it_is(model: nn.Module, mode: bool = True) -> nn.Module:
    return model


@contextmanager
def muted() -> Iterator[None]:
    """Without what runs print and log; errors come as exceptions."""
    import logging

    import transformers

    said = logging.getLogger("ftk")
    level, verbosity = said.level, transformers.logging.get_verbosity()
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(stack.enter_context(Path(devnull).open("w"))))
        said.setLevel(max(level, logging.ERROR) if level != logging.DEBUG else level)
        transformers.logging.set_verbosity_error()
        bars = transformers.logging.is_progress_bar_enabled()
        transformers.logging.disable_progress_bar()
        try:
            yield
        finally:
            said.setLevel(level)
            if bars:
                transformers.logging.enable_progress_bar()
            transformers.logging.set_verbosity(verbosity)


def apart(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """How far tensors by name are apart, as a share of the wanted ones, in the 2-norm over all of them."""
    if found.keys() != wanted.keys():
        return float("inf")
    between = sum(float((found[name] - wanted[name]).double().square().sum()) for name in wanted) ** 0.5
    size = sum(float(one.double().square().sum()) for one in wanted.values()) ** 0.5
    return between / size if size else between
