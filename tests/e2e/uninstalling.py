"""Takes one plugin away at a time and runs the rest of the suite: nothing else may fall.

    python tests/e2e/uninstalling.py [--tests "tests/kernel tests/contract"] ftk-dora ftk-galore ...

Run it in an environment of its own that ``pip install -r requirements.txt`` has made, from a clean checkout: each
plugin is uninstalled by pip, what pytest says of everything but its own folder is printed, and it is installed again.
Not part of the suite, which would run once for each plugin. Exit code 1 when a test failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALWAYS_THERE = "tests/contract/test_index.py"  # compares a file with what all plugins declare


def folder_of(distribution: str) -> Path:
    found = list(ROOT.glob(f"plugins/*/{distribution}"))
    if len(found) != 1:
        raise SystemExit(f"{distribution}: there is no such plugin in plugins/")
    return found[0]


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *words], check=True, cwd=ROOT)


def rest_passes(folder: Path, tests: list[str]) -> bool:
    """Whether everything but the plugin's own tests passes without it; prints the last line of pytest."""
    words = [
        "-q",
        "-n",
        "2",
        "--dist",
        "loadfile",
        f"--ignore={folder.relative_to(ROOT)}",
        f"--deselect={ALWAYS_THERE}",
    ]
    words += ["-k", f"not {folder.name}"]  # contract tests that are made from the tree, not from what is installed
    done = subprocess.run([sys.executable, "-m", "pytest", *words, *tests], cwd=ROOT, capture_output=True, text=True)
    listed = subprocess.run(
        [Path(sys.executable).with_name("ftk"), "plugins", "list"], cwd=ROOT, capture_output=True, text=True
    )
    gone = f"{folder.name} " not in listed.stdout
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print(f"without {folder.name}: {done.stdout.splitlines()[-1]}; listed: {'no' if gone else 'YES'}", flush=True)
    print("".join(f"  {line}\n" for line in failed), end="", flush=True)
    return done.returncode == 0 and gone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plugins", nargs="+")
    parser.add_argument("--tests", default="tests plugins")
    given = parser.parse_args()
    passed = True
    for name in given.plugins:
        folder = folder_of(name)
        pip("uninstall", "-y", name)
        try:
            passed = rest_passes(folder, given.tests.split()) and passed
        finally:
            pip("install", "--no-deps", "--no-build-isolation", "-e", str(folder))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
