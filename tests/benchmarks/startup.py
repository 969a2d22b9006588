"""What it costs to start: ``ftk --help``, ``ftk plugins list``, a dry run, and 100 more plugins.

    python tests/benchmarks/startup.py [ROUNDS]

The yardstick is ``python -c "import click, importlib.metadata"``: the interpreter, the command line library, and what
finding plugins needs. CPU seconds of whole processes, medians over rounds in which the commands take turns.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from timing import in_turn, machine, median, median_ratio

ROOT = Path(__file__).parents[2]
FTK = [str(Path(sys.executable).with_name("ftk"))]
YARDSTICK = [sys.executable, "-c", "import click, importlib.metadata"]
PLUGIN = '''"""Made up."""
import ftk


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate("made-up-{number}", user="[{{content}}]", summary="Made up")
'''


def write_plugins(folder: Path, count: int) -> None:
    """``count`` installed plugins, as pip would have left them."""
    for number in range(count):
        (folder / f"made_up_{number}.py").write_text(PLUGIN.format(number=number))
        info = folder / f"ftk_made_up_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: ftk-made-up-{number}\nVersion: 1.0\nRequires-Dist: ftk-kernel>=0.1\n"
        )
        (info / "entry_points.txt").write_text(f"[ftk]\nmade-up-{number} = made_up_{number}\n")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(machine())
    commands = {
        "yardstick": YARDSTICK,
        "ftk --help": [*FTK, "--help"],
        "ftk plugins list": [*FTK, "plugins", "list"],
        "ftk run --dry-run": [*FTK, "run", str(ROOT / "configs" / "quickstart.yaml"), "--dry-run"],
    }
    costs = in_turn(commands, rounds)
    for name, found in costs.items():
        ratio = median_ratio(found, costs["yardstick"])
        print(f"{name:<20} cpu {median(found):.3f} s  wall {median(found, 'wall_s'):.3f} s  {ratio:.2f} x yardstick")
    with tempfile.TemporaryDirectory() as folder:
        write_plugins(Path(folder), 100)
        few, many = (
            {"few": ["env", f"PYTHONPATH={os.devnull}", *FTK, "--help"]},
            {"many": ["env", f"PYTHONPATH={folder}", *FTK, "--help"]},
        )
        costs = in_turn({**few, **many}, rounds)
        more = sorted(b.cpu_s - a.cpu_s for a, b in zip(costs["few"], costs["many"], strict=True))[rounds // 2]
        print(f"100 more plugins     cpu +{more * 1000:.0f} ms on ftk --help")


if __name__ == "__main__":
    main()
