"""What each pipeline is asked for, and what it tells: shared by the scripts beside this one, with numpy alone.

A script prints ``PREPARED {...}`` (wall and CPU seconds) as soon as the rows are ready, then ``COUNTED {...}``: rows,
tokens, tokens that are trained, all without padding. With ``--save`` it also keeps all tokens and labels.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

IGNORED = -100
SETS = {
    "alpaca_50k": {"file_name": "alpaca_50k.jsonl"},
    "sharegpt_50k": {
        "file_name": "sharegpt_50k.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
    },
}
"""The entries of dataset_info.json; TRL reads the same rows as messages, from NAME_messages.jsonl."""


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="a folder with dataset_info.json")
    parser.add_argument("--dataset", choices=SETS, default="alpaca_50k")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cutoff", type=int, default=1024)
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--out", required=True, help="a folder for what a pipeline leaves behind")
    parser.add_argument("--save", help="an .npz for ids, labels and lengths")
    return parser.parse_args()


@contextmanager
def timed() -> Iterator[None]:
    """Tells how long the body took. CPU seconds have those of processes that ended in it."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    yield
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": sum(os.times()[:4]) - cpu}
    print("PREPARED " + json.dumps(spent), flush=True)


def tell(rows: Iterable[tuple[np.ndarray, np.ndarray]], padding: int, save: str | None) -> None:
    """Count (ids, labels) of each row, without the padding at its end, and keep them if asked to."""
    ids, labels, lengths = [], [], []
    for row_ids, row_labels in rows:
        length = len(row_ids) - int(np.argmax(row_ids[::-1] != padding))
        ids.append(row_ids[:length].astype(np.int32))
        labels.append(row_labels[:length].astype(np.int32))
        lengths.append(length)
    trained = sum(int((row != IGNORED).sum()) for row in labels)
    print("COUNTED " + json.dumps({"rows": len(lengths), "tokens": sum(lengths), "trained": trained}), flush=True)
    if save:
        np.savez(save, ids=np.concatenate(ids), labels=np.concatenate(labels), lengths=np.array(lengths))
