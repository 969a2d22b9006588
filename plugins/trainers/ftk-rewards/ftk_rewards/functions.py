"""Calling what judges: rewards of plugins and functions of the user's own, all by the names in their signatures."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ftk import ConfigError, FtkError

if TYPE_CHECKING:
    from ftk.run import Run


class RewardError(FtkError):
    """Something that judges answers failed."""


@dataclass(frozen=True)
class Answers:
    """Answers to judge, and what is known about them; lists of one length. See :class:`ftk_rewards.Reward`.

    ids: the tokens of each whole text, prompt and answer, for models that judge.
    """

    replies: Sequence[str]
    prompts: Sequence[Sequence[Mapping[str, Any]]]
    references: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    finished: Sequence[bool]
    tokens: Sequence[Sequence[int]]
    ids: Sequence[Sequence[int]] = ()

    def __len__(self) -> int:
        return len(self.replies)

    def column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self.rows]


OWN = ("replies", "completions", "prompts", "references", "rows", "finished", "tokens", "run")


class Function:
    """One that judges by calling a function. name: for logs and errors."""

    def __init__(self, name: str, function: Callable[..., Any], run: Run) -> None:
        self.name, self.function, self.run = name, function, run
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError) as cause:
            raise ConfigError(f"{run.plan.where('reward_funcs')}: {name}: is no function: {cause}") from cause
        self.all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
        positional = inspect.Parameter.POSITIONAL_ONLY
        named = [one for one in parameters if one.kind not in (inspect.Parameter.VAR_KEYWORD, positional)]
        self.names = [one.name for one in named if one.kind is not inspect.Parameter.VAR_POSITIONAL]
        self.optional = {one.name for one in named if one.default is not inspect.Parameter.empty}

    def __call__(self, answers: Answers) -> list[float]:
        """A number for each answer, NaN where it has nothing to say. Raises RewardError."""
        given = self._arguments(answers)
        try:
            scores = self.function(**given)
        except FtkError:
            raise
        except Exception as cause:
            raise RewardError(f"reward {self.name} failed: {type(cause).__name__}: {cause}") from cause
        return self._checked(scores, len(answers))

    def _arguments(self, answers: Answers) -> dict[str, Any]:
        given = {name: getattr(answers, name) for name in OWN if name not in ("completions", "run")}
        given |= {"completions": answers.replies, "run": self.run}
        columns = {name for row in answers.rows for name in row} - set(OWN)
        if self.all:
            return given | {name: answers.column(name) for name in columns}
        missing = [name for name in self.names if name not in given and name not in columns | self.optional]
        if missing:
            there = ", ".join(sorted(columns)) or "none"
            raise RewardError(
                f"reward {self.name}: takes {', '.join(missing)}, which is no column of the data. Columns: {there}"
            )
        wanted = {name: given[name] for name in self.names if name in given}
        return wanted | {name: answers.column(name) for name in self.names if name in columns}

    def _checked(self, scores: Any, num: int) -> list[float]:
        scores = scores.tolist() if hasattr(scores, "tolist") else scores
        if not isinstance(scores, Sequence) or len(scores) != num:
            found = f"{len(scores)} of them" if isinstance(scores, Sequence) else repr(scores)[:40]
            raise RewardError(f"reward {self.name}: expected a list of {num} numbers, found {found}")
        for score in scores:
            if score is not None and (not isinstance(score, Real) or math.isinf(float(score))):
                raise RewardError(f"reward {self.name}: expected finite numbers or None, found {score!r}")
        return [math.nan if score is None else float(score) for score in scores]


def named(run: Run) -> list[Function]:
    """The functions of ``reward_funcs``, in order. Raises ConfigError for one that is not there."""
    wanted = cast("tuple[str, ...]", run.value("reward_funcs"))
    made = []
    for name in wanted:
        if ":" in name:
            made.append(Function(name.rpartition(":")[2], _of_file(run, name), run))
        elif name != "none":
            spec = run.plan.registry.find("reward", name)
            made.append(Function(name, spec.load(), run))
    return made


def _of_file(run: Run, text: str) -> Callable[..., Any]:
    """``file.py:function``; the file is looked for beside the YAML, then where ftk was started."""
    file, _, attribute = text.rpartition(":")
    where = run.plan.where("reward_funcs")
    tried = [Path(run.plan.config).parent / file, Path(file)]
    path = next((one for one in tried if one.is_file()), None)
    if path is None:
        raise ConfigError(f"{where}: there is no file {file} beside the YAML or here")
    module = run.once(f"ftk_rewards.file:{path.resolve()}", lambda: _imported(path, where))
    function = getattr(module, attribute, None)
    if not callable(function):
        there = ", ".join(name for name, one in vars(module).items() if inspect.isfunction(one)) or "none"
        raise ConfigError(f"{where}: {file} has no function {attribute}. It has: {there}")
    return cast("Callable[..., Any]", function)


def _imported(path: Path, where: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"ftk_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{where}: {path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as cause:
        raise ConfigError(f"{where}: {path.name} cannot be imported: {type(cause).__name__}: {cause}") from cause
    return module
