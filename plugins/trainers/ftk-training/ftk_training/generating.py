"""Evaluations that let the model answer, while it trains and after: ``predict_with_generate`` and ``do_predict``."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from ftk import ConfigError
from ftk_data.questions import Question, questions

from ftk_training.options import TrainingOptions
from ftk_training.predicting import Answering, Processes, compared, facts_of, processes
from ftk_training.prediction import PredictionOptions
from ftk_training.predictions_file import FILE, PredictionsFile

if TYPE_CHECKING:
    from ftk import Metrics
    from ftk.run import Run
    from ftk.specs import Engine
    from ftk.types import RunningEngine

    from ftk_training.trainer import ExactTrainer


def wanted(run: Run) -> bool:
    """Whether this run's model answers prompts.

    Raises ConfigError when the stage cannot and the YAML asks for predictions.
    """
    options = run.plan.options.get(PredictionOptions)
    answers = bool(options and options.predict_with_generate)
    if run.options(TrainingOptions).do_predict and not answers:
        hint = "set predict_with_generate: true" if options else "this stage answers none. ftk predict does"
        raise ConfigError(f"{run.plan.where('do_predict')}: prompts are answered by generating; {hint}")
    return answers


class Generating:
    """What the trainer asks for the metrics of answers. Made before the first step.

    reported: the names of those that evaluations have had, for the terminal.
    """

    def __init__(self, trainer: ExactTrainer) -> None:
        self.trainer, self.run = trainer, trainer.run
        _refuse_impossible(trainer)
        self.reported: set[str] = set()
        self.asked = questions(self.run, "eval")
        self.limit = self.run.options(PredictionOptions).generate_samples
        if not self.asked:
            raise _nothing_to_answer(self.run)

    def evaluate(self, prefix: str) -> dict[str, float]:
        """The metrics of an evaluation. Leaves all random states as they were."""
        asked: Sequence[Question] = self.asked
        if isinstance(self.trainer.eval_dataset, dict):
            asked = [question for question in asked if question.dataset == prefix.removeprefix("eval_")]
        if self.trainer.is_in_train:
            asked = asked[: self.limit]
        with self._engine() as engine:
            found = compared(self.run, self._answering(asked).all(engine))
        named = {f"{prefix}_{name}": value for name, value in found.items()}
        self.reported |= named.keys()
        return named

    def predict(self) -> dict[str, float]:
        """Answer all prompts into ``generated_predictions.jsonl``, and the metrics of that."""
        with self._engine() as engine:
            return predicted(self._answering(self.asked), lambda: engine, steps=self.trainer.state.global_step)

    def _answering(self, asked: Sequence[Question]) -> Answering:
        args = self.trainer.args
        processes = Processes(args.process_index, args.world_size)
        return Answering(self.run, asked, args.per_device_eval_batch_size, processes)

    @contextmanager
    def _engine(self) -> Iterator[RunningEngine]:
        """The run's engine on the model as it is now."""
        spec = cast("Engine", self.run.plan.one("engine"))
        model = self.trainer.accelerator.unwrap_model(self.trainer.model) if spec.loads_model else None
        engine = self.run.engine(model)
        with _random_states_kept(), torch.no_grad(), self.trainer.compute_loss_context_manager():
            try:
                yield engine
            finally:
                engine.close()


def _refuse_impossible(trainer: ExactTrainer) -> None:
    run, spec = trainer.run, cast("Engine", trainer.run.plan.one("engine"))
    if trainer.options.do_train and not spec.loads_model:
        raise ConfigError(
            f"{run.plan.where('infer_backend')}: loads the weights from files, so it cannot answer with a "
            "model that is training. Leave it out, or predict afterwards: ftk predict"
        )
    if trainer.is_fsdp_enabled or (trainer.is_deepspeed_enabled and _is_zero3()):
        raise ConfigError(
            f"{run.plan.where('predict_with_generate')}: a model that is spread over processes cannot answer while it "
            "trains. Take it out, and predict afterwards: ftk predict"
        )


def _is_zero3() -> bool:
    from transformers.integrations import is_deepspeed_zero3_enabled

    return bool(is_deepspeed_zero3_enabled())


def _nothing_to_answer(run: Run) -> ConfigError:
    return ConfigError(
        f"{run.plan.where('predict_with_generate')}: there are no prompts to answer. Set eval_dataset or val_size"
    )


@contextmanager
def _random_states_kept() -> Iterator[None]:
    python, numbers = random.getstate(), np.random.get_state()
    devices = range(torch.accelerator.device_count()) if torch.accelerator.is_available() else ()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)


def predicted(answering: Answering, make_engine: Callable[[], RunningEngine], **facts: Any) -> dict[str, float]:
    """Answer into the run directory, note the file as ours, and return ``{predict_METRIC: number}``."""
    from ftk_training.result import note_files

    run = answering.run
    file = PredictionsFile(
        run.output_dir / FILE, facts_of(run, answering.questions, "eval", at_once=answering.rows_at_once, **facts)
    )
    found = compared(run, answering.into(file, make_engine))
    if answering.processes.rank == 0:
        note_files(run, [file.path.name, file.state.name])
        print(f"answered {len(answering.questions)} prompts: {file.path}")
        if found:
            print(f"prediction: {', '.join(f'{name} {value:.2f}' for name, value in found.items())}")
    return {f"predict_{name}": value for name, value in found.items()}


def predict_alone(run: Run) -> Metrics:
    """A run that neither trains nor evaluates: the engine has the model to itself, or loads it."""
    from ftk_training.result import write_metrics

    run.record(result="none")
    asked = questions(run, "eval")
    if not asked:
        raise _nothing_to_answer(run)
    batch_size = run.options(TrainingOptions).per_device_eval_batch_size
    answering = Answering(run, asked, batch_size, processes())
    found = predicted(answering, run.engine)
    if answering.processes.rank == 0:
        write_metrics(run, found)
    return found
