"""What the reference says of texts, computed once: a number for each text, kept in the run directory.

A text is known by a digest of its tokens, its labels, its weights and what it shows, so the order of rows, packing and
batches do not matter, and a run that goes on, or one more epoch, finds it again. The file tells of which weights it is
(:func:`fingerprint`); one of others is made anew.

R: texts of a batch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object
from ftk import ConfigError, DataError, rundir
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ftk_training.collator import IGNORED
from ftk_training.streams import is_stream

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ftk_training.pairs import Text
    from ftk_training.reference import Reference
    from ftk_training.trainer import ExactTrainer

log = logging.getLogger("ftk.training")

FILE = "reference_log_probs.safetensors"
EVERY = 60.0
"""Seconds between two writings of what has been computed so far."""
SAMPLE = 256
"""So many values of each weight are looked at to tell models apart."""

Keys = Callable[[Sequence[Any]], "NDArray[np.int64]"]
"""``keys(rows) -> (R,)``: the keys of the texts of some rows, in the order of a batch of them."""
Values = Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]
"""``values(model, batch) -> (R,)``: what the reference says of each text of a batch."""


def key_of(text: Text, *more: float) -> int:
    """64 bits that tell a text from others. more: numbers that its value depends on besides."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(np.ascontiguousarray(text.ids_T, np.int64).tobytes())
    digest.update((np.asarray(text.labels_T) != IGNORED).tobytes())
    rest = (None if text.weights_T is None else text.weights_T.tobytes(), text.media, more)
    digest.update(repr(rest).encode())
    return int.from_bytes(digest.digest(), "big", signed=True)


@dataclass(frozen=True)
class Known:
    """Keys, ascending, and the value of each."""

    keys_K: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    values_K: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    def has(self, keys_R: NDArray[np.int64]) -> bool:
        """Whether all of some texts are known."""
        return bool(np.isin(keys_R, self.keys_K).all())

    def find(self, keys_R: NDArray[np.int64]) -> torch.Tensor:
        """(R,) float32. Raises DataError for a text that is not known."""
        places = np.searchsorted(self.keys_K, keys_R).clip(max=max(len(self.keys_K) - 1, 0))
        if not len(self.keys_K) or not (self.keys_K[places] == keys_R).all():
            raise DataError("precompute_ref_log_probs: a row was changed after the log-probabilities were computed")
        return torch.from_numpy(self.values_K[places])

    def joined(self, made: dict[int, float]) -> Known:
        """These and others."""
        every = {**dict(zip(self.keys_K.tolist(), self.values_K.tolist(), strict=True)), **made}
        keys = sorted(every)
        return Known(np.array(keys, np.int64), np.array([every[key] for key in keys], np.float32))


def remembered(trainer: ExactTrainer, reference: Reference, collate: Any, keys: Keys, values: Values) -> Known:
    """What the reference says of every text of the trainer's rows: read, and what is missing computed and written.

    Raises ConfigError for rows that stream, which nobody can go through beforehand.
    """
    sets = [one for rows in (trainer.train_dataset, trainer.eval_dataset) if rows is not None for one in _each(rows)]
    if any(is_stream(rows) for rows in sets):
        where = trainer.run.plan.where("precompute_ref_log_probs")
        raise ConfigError(f"{where}: cannot go through rows that stream beforehand. Take it or streaming out")
    path = trainer.run.output_dir / FILE
    with reference.model(trainer.model) as model:
        of = fingerprint(model)
        known = read(path, of)
        todo = list(_missing(trainer, known, sets, keys))
        made: dict[int, float] = {}
        began = written = time.monotonic()
        for rows in todo[trainer.args.process_index :: trainer.args.world_size]:
            with trainer.compute_loss_context_manager():
                found = values(model, trainer._prepare_inputs(collate(rows)))
            made |= dict(zip(keys(rows).tolist(), found.float().tolist(), strict=True))
            if time.monotonic() - written > EVERY and trainer.args.world_size == 1:
                known, made, written = known.joined(made), {}, time.monotonic()
                write(path, known, of)
                log.info("%d texts have been asked of the reference", len(known.keys_K))
    every = gather_object([made]) if trainer.args.world_size > 1 else [made]
    known = known.joined({key: value for part in every for key, value in part.items()})
    if todo and trainer.args.should_save:
        write(path, known, of)
    log.info(
        "reference: %d texts, %d batches computed in %.1f s", len(known.keys_K), len(todo), time.monotonic() - began
    )
    return known


def _each(rows: Any) -> list[Any]:
    return list(rows.values()) if isinstance(rows, dict) else [rows]


def _missing(trainer: ExactTrainer, known: Known, sets: Sequence[Any], keys: Keys) -> Iterator[list[Any]]:
    """Batches of rows that have texts which are not known, long ones first, so that little of a batch is padding."""
    size = trainer.args.per_device_eval_batch_size
    for rows in sets:
        order = np.argsort(-rows.lengths_N, kind="stable")
        wanted = [row for row in (rows[int(number)] for number in order) if not known.has(keys([row]))]
        yield from (wanted[first : first + size] for first in range(0, len(wanted), size))


def fingerprint(model: Any) -> str:
    """A digest of the weights of a model without its adapters: of some values of each."""
    adapters = tuple(f".{name}" for name in getattr(model, "peft_config", None) or ())
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in model.named_parameters():
        if any(name.endswith(one) or f"{one}." in name for one in adapters):
            continue
        flat = parameter.detach().flatten()
        some = flat[:: max(1, len(flat) // SAMPLE)]
        digest.update(f"{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(some.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def read(path: Path, of: str) -> Known:
    """What a file holds; nothing when there is none, or when it is of other weights or damaged."""
    try:
        with safe_open(path, "np") as file:
            if (file.metadata() or {}).get("of") == of:
                return Known(file.get_tensor("keys"), file.get_tensor("values"))
        log.info("%s: is of another reference, and made anew", path)
    except (OSError, SafetensorError) as cause:
        if path.exists():
            log.warning("%s: cannot be read (%s), and is made anew", path, cause)
    return Known()


def write(path: Path, known: Known, of: str) -> None:
    """Put a file in the place of what was there, whole or not at all. Raises DataError when it cannot be written."""
    tensors = {"keys": torch.from_numpy(known.keys_K), "values": torch.from_numpy(known.values_K)}
    aside = path.with_name(f"{rundir.ASIDE}{path.name}")
    try:
        with aside.open("wb") as file:
            file.write(save(tensors, {"of": of}))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as cause:
        aside.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written: {cause.strerror}") from cause
