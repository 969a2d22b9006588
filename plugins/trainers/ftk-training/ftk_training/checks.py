"""What a check is: something that is tried on the user's own model and data before a long run (``ftk verify``).

The kind is opened here and not by the command, so that a stage can bring what it alone knows (its loss computed by
hand) without depending on the command. Whole, in a stage's plugin::

    from ftk_training.checks import Check, Outcome, measured

    @ftk.hookimpl
    def ftk_checks():
        yield Check("dpo-loss", target="ftk_dpo.checking:loss_by_hand", needs=("trainer:dpo",),
                    summary="The loss of a row is the formula's", mend="Report it with the config and a row")

    def loss_by_hand(bench):
        trained = bench.train(steps=1, still=True, num_rows=2, look=by_hand, learning_rate=0.0)
        return measured("loss", trained.losses[0], trained.seen, bench.tolerance)

Losses that have a reference need weights that have moved from it: :mod:`ftk_training.by_hand`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import ftk

if TYPE_CHECKING:
    from pathlib import Path

    from ftk.plan import Plan
    from ftk.run import Run


@dataclass(frozen=True, eq=False, repr=False)
class Check(ftk.Spec):
    """Target: ``check(bench) -> Outcome``.

    needs, excludes: the runs that it is about, as for every spec; in others it does not apply.
    mend: what to do when it fails, one line.
    rehearsed: ``ftk run --rehearse`` makes it, too: it is quick and holds whatever the weights are.
    """

    kind: ClassVar[str] = "check"
    mend: str = ""
    rehearsed: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a check has found. passed: None when it does not apply, and ``said`` is why.

    said: the numbers, one line. tolerance: how much a difference may be, as shown. details: lines to go below.
    """

    passed: bool | None
    said: str
    tolerance: str = ""
    details: tuple[str, ...] = ()


class NotApplicable(Exception):
    """Raised in a check that has nothing to say of this run; its text is why."""


def measured(what: str, found: float, wanted: float, tolerance: float) -> Outcome:
    """Two numbers that have to be the same up to ``tolerance``, as a share of the wanted one."""
    share = abs(found - wanted) / max(abs(wanted), 1e-12)
    return Outcome(
        share <= tolerance, f"{what} {found:.6f}, by hand {wanted:.6f}: {share:.1e} apart", f"{tolerance:.0e}"
    )


@dataclass
class Trained:
    """What a short run has left.

    losses: of each step. gradients: name of a weight that learns → the gradient of the first step, summed over all
    micro-batches, before clipping, float32 on the CPU. weights: name → the weight after the last step, the same way.
    trainer: the :class:`ftk_training.trainer.ExactTrainer`; None for a stage that does without.
    seen: what ``look`` returned.
    """

    run: Run
    folder: Path
    losses: list[float] = field(default_factory=list)
    gradients: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    trainer: Any = None
    seen: Any = None


class Bench(Protocol):
    """The user's run, to be tried in a temporary folder. ``output_dir`` is never touched."""

    plan: Plan

    @property
    def tolerance(self) -> float:
        """How far two ways to compute one number may be apart, as a share, in the types that the run computes in."""

    def rows(self, num_rows: int, **settings: Any) -> Any:
        """``run.rows("train")`` of about so many rows, without packing unless ``settings`` say so."""

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
        """The run itself with ``settings`` over its own, for a few steps on its first rows.

        still: without dropout and whatever else only training does, so that two runs are comparable.
        prepare: called with the model that learns, before the first step; look: after the last one.
        """

    def answering(self, source: str | Path | None = None, **settings: Any) -> Run:
        """The model, template and engine of a finished run's folder, or of the user's base model."""

    def examples(self) -> Any:
        """The first examples of the training data, as converters give them."""


def note_trainer(run: Run, trainer: Any) -> None:
    """Remember the trainer of a run, for checks; called by ``fit``."""
    run.once("ftk_training.trainer", lambda: trainer)


def trainer_of(run: Run) -> Any:
    """The trainer of a run that ``fit`` has done, else None."""
    return run.once("ftk_training.trainer", lambda: None)
