"""Measuring whole commands fairly: in turn, several rounds after a warm-up, medians and ratios per round."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True)
class Cost:
    """What one run took. cpu_s: user and system time with children; peak_mib: the largest process."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def measure(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> Cost:
    """Run a command to its end. Raises RuntimeError with its output when it fails."""
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(env or {})}, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            said = output.read().decode()[-3000:]
            raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}:\n{said}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def in_turn(commands: Mapping[str, Sequence[str]], rounds: int = 7, **options) -> dict[str, list[Cost]]:
    """Each command once as a warm-up, then all of them in turn, ``rounds`` times."""
    for command in commands.values():
        measure(command, **options)
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            costs[name].append(measure(command, **options))
    return costs


def median_ratio(costs: Sequence[Cost], reference: Sequence[Cost], field: str = "cpu_s") -> float:
    """The median over the rounds of cost / reference within one round."""
    return statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(costs, reference, strict=True))


def median(costs: Sequence[Cost], field: str = "cpu_s") -> float:
    return statistics.median(getattr(cost, field) for cost in costs)


def machine() -> str:
    """One line about the machine and the versions, for the table."""
    names = ("torch", "transformers", "peft", "accelerate", "click", "pluggy")
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, {', '.join(found)}"
