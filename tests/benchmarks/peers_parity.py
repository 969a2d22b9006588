"""Tokens and labels of ftk, row by row, against those of LLaMA-Factory's pipeline and TRL's.

    python tests/benchmarks/peers_parity.py [--llamafactory PYTHON] [--trl PYTHON] [--data DIR]
        [--sets alpaca_50k sharegpt_50k] [--cutoff 1024] [--rows NUM]

The arguments are those of peers_rows.py. Two differences are meant: the peers train the newline that stands after the
end token, which no model ever generates; and of a row over the cutoff they keep the first ``cutoff`` tokens, ftk its
whole turns (without a whole answer, the first tokens as well). Exits with 1 when there is any other.

T: all tokens of a pipeline, D: those whose labels differ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from peers_rows import SETS, Task, perform, take
from rows_data import make

IGNORED = -100


class Saved(NamedTuple):
    """What a pipeline made. edges: where each row starts, with the end as the last."""

    ids_T: np.ndarray
    labels_T: np.ndarray
    edges: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Saved:
        found = np.load(path)
        return cls(found["ids"], found["labels"], np.concatenate((np.zeros(1, int), np.cumsum(found["lengths"]))))

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        span = slice(self.edges[index], self.edges[index + 1])
        return self.ids_T[span], self.labels_T[span]


def differences(ours: Saved, theirs: Saved, cutoff: int) -> Counter[str]:
    """How many rows are alike, how many labels differ, and why."""
    found: Counter[str] = Counter()
    for index in range(max(len(ours.edges), len(theirs.edges)) - 1):
        (ids_T, labels_T), (ids, labels) = ours.row(index), theirs.row(index)
        num = len(ids_T)
        if np.array_equal(ids_T, ids):
            found["rows with equal tokens"] += 1
        elif len(ids) == cutoff and np.array_equal(ids_T, ids[:num]) and labels_T[-1] != IGNORED:
            found["rows over the cutoff: whole turns here, cut there"] += 1
        else:
            found["OTHER ROWS"] += 1
            continue
        differing_D = np.flatnonzero(labels_T != labels[:num])
        # the peer trains one more token, right after the last that is trained here
        follows_D = (labels_T[differing_D] == IGNORED) & (labels_T[differing_D - 1] != IGNORED)
        found[f"newlines ({set(ids_T[differing_D[follows_D]].tolist())}) trained there only"] += int(follows_D.sum())
        found["OTHER LABELS"] += int((~follows_D).sum())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="another model than that of the data's folder")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--llamafactory", metavar="PYTHON")
    parser.add_argument("--trl", metavar="PYTHON")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--cutoff", type=int, default=1024)
    parser.add_argument("--rows", type=int)
    given = parser.parse_args()
    peers = {"llamafactory": given.llamafactory, "trl": given.trl}
    unexpected = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given.data = given.data or folder / "made"
        make(given.data)
        given.model = given.model or given.data / "model"
        take(given.data, folder, given.sets, given.rows)
        for dataset in given.sets:
            made = {}
            for pipeline, python in {"ftk": sys.executable, **peers}.items():
                if python:
                    task = Task(pipeline, dataset, cutoff=given.cutoff)
                    result = perform(task, python, given.model.resolve(), folder, folder / "saved.npz")
                    made[pipeline] = Saved.read(folder / "saved.npz")
                    counts = f"{result.rows} rows, {result.tokens} tokens, {result.trained} trained"
                    print(f"{dataset}, cutoff {given.cutoff}, {pipeline}: {counts}")
            for pipeline in [name for name in made if name != "ftk"]:
                found = differences(made["ftk"], made[pipeline], given.cutoff)
                unexpected += found["OTHER ROWS"] + found["OTHER LABELS"]
                print(f"  ftk and {pipeline}: " + "; ".join(f"{num} {what}" for what, num in found.items()))
    sys.exit(1 if unexpected else 0)


if __name__ == "__main__":
    main()
