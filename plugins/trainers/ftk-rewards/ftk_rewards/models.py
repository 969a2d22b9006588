"""Reward models: a value head on a model of its own, or on an adapter that takes turns with the one that learns.

The score of a text is the value at its last token, as stage rm trains it. B texts, T tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError
from ftk_training import reference, value_head
from ftk_training.learning import value
from ftk_training.preference_options import RewardModelOptions
from ftk_training.quick_imports import quick_imports

from ftk_rewards.remote import Server

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.trainer import ExactTrainer

log = logging.getLogger("ftk.rewards")

ADAPTER = "reward"
"""The name of the reward adapter inside of the model that learns."""


def scores(model: Any, ids: Sequence[Sequence[int]], batch_size: int) -> list[float]:
    """The value at the last token of each text, ``batch_size`` texts at a time."""
    made: list[float] = []
    for first in range(0, len(ids), batch_size):
        part = ids[first : first + batch_size]
        lengths_B = torch.tensor([len(one) for one in part])
        ids_BT = torch.zeros(len(part), int(lengths_B.max()), dtype=torch.int64)
        for row, one in enumerate(part):
            ids_BT[row, : len(one)] = torch.as_tensor(one)
        mask_BT = (torch.arange(ids_BT.shape[1]) < lengths_B[:, None]).long()
        device = model.device
        with torch.no_grad():
            values_BT = value_head.values(model, {"input_ids": ids_BT.to(device), "attention_mask": mask_BT.to(device)})
        made += values_BT.gather(1, (lengths_B - 1)[:, None].to(values_BT.device))[:, 0].tolist()
    return made


class AdapterModel:
    """``reward_model_type: lora``: the reward's adapter beside the one that learns, on one base model.

    Raises ConfigError when the run trains no adapter, or the folder holds none with a value head.
    """

    def __init__(self, trainer: ExactTrainer, folder: str, where: str) -> None:
        self.trainer = trainer
        model = trainer.accelerator.unwrap_model(trainer.model)
        if not getattr(model, "peft_config", None):
            raise ConfigError(
                f"{where}: reward_model_type lora takes turns with an adapter that learns, and none does. Set "
                "finetuning_type: lora, or reward_model_type: full"
            )
        self.own = model.active_adapter
        state = value_head.read(Path(folder).expanduser())
        if state is None:
            raise ConfigError(f"{where}: holds no {value_head.FILE}. Give the folder of an adapter of stage rm")
        self.head = value_head.made_of(state).to(model.device)
        self.had_head = value_head.head_of(model) is not None
        learning = {name for name, one in model.named_parameters() if one.requires_grad}
        with quick_imports():
            model.load_adapter(folder, adapter_name=ADAPTER, is_trainable=False)
        if not self.had_head:
            value_head.attach(model).requires_grad_(False)
        for name, one in model.named_parameters():
            one.requires_grad_(name in learning)
        self.learning = learning

    def __call__(self, ids: Sequence[Sequence[int]], batch_size: int) -> list[float]:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        with self._switched(model), value_head.using(model, self.head):
            return scores(model, ids, batch_size)

    @contextmanager
    def _switched(self, model: Any) -> Iterator[None]:
        was_training = model.training
        model.eval()
        model.set_adapter(ADAPTER)
        try:
            yield
        finally:
            model.set_adapter(self.own)
            for name, one in model.named_parameters():  # which peft sets for all of an adapter
                one.requires_grad_(name in self.learning)
            model.train(was_training)


class FullModel:
    """``reward_model_type: full``: a model of its own beside the run's, with the adapters merged that are named.

    Raises ConfigError for one without a value head or with another tokenizer.
    """

    def __init__(self, trainer: ExactTrainer, options: RewardModelOptions, where: str) -> None:
        other = reference.beside(
            trainer.run,
            "reward_model",
            str(options.reward_model),
            options.reward_model_adapters,
            options.reward_model_quantization_bit,
        )
        if other.tokenizer.get_vocab() != trainer.run.tokenizer.get_vocab():
            raise ConfigError(f"{where}: has another tokenizer than the model that learns. Take one of the same family")
        state = value_head.beside(other)
        if state is None:
            raise ConfigError(f"{where}: holds no {value_head.FILE}. Give a model that stage rm trained")
        self.model = other.model(trainable=False)
        value_head.put(value_head.attach(self.model), state, where)
        self.model = reference.placed(trainer, self.model)
        log.info("rewards of %s", options.reward_model)

    def __call__(self, ids: Sequence[Sequence[int]], batch_size: int) -> list[float]:
        return scores(self.model, ids, batch_size)


class RemoteModel:
    """``reward_model_type: api``: the texts, with their control tokens, go to a server."""

    def __init__(self, run: Run, address: str, where: str) -> None:
        self.server, self.tokenizer = Server(address, where), run.tokenizer

    def __call__(self, ids: Sequence[Sequence[int]], batch_size: int) -> list[float]:
        made: list[float] = []
        for first in range(0, len(ids), batch_size):
            made += self.server.scores([self.tokenizer.decode(one) for one in ids[first : first + batch_size]])
        return made


def model_of(trainer: ExactTrainer) -> Any:
    """The reward model that the run names, ``judge(ids, batch_size) -> scores``; None when it names none."""
    run = trainer.run
    options = run.options(RewardModelOptions)
    if not options.reward_model:
        return None
    where, kind = run.plan.where("reward_model"), value(run, "reward_model_type")
    return {
        "lora": lambda: AdapterModel(trainer, str(options.reward_model), where),
        "full": lambda: FullModel(trainer, options, where),
        "api": lambda: RemoteModel(run, str(options.reward_model), where),
    }[kind]()
