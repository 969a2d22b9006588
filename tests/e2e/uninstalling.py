"""Takes one plugin away at a time and runs the rest of the suite: nothing else may fall.

    python tests/e2e/uninstalling.py [--together] [--tests "tests/kernel tests/contract"] ftk-dora ftk-galore ...

Run it in an environment of its own that ``pip install -r requirements.txt`` has made, from a clean checkout: each
plugin is uninstalled by pip, what pytest says of everything but its own folder is printed, and it is installed again.
With ``--together`` all of them are taken away at once, and the rest runs once.
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


def rest_passes(folders: list[Path], tests: list[str]) -> bool:
    """Whether everything but the plugins' own tests passes without them; prints the last line of pytest."""
    words = ["-q", "-n", "2", "--dist", "loadfile", f"--deselect={ALWAYS_THERE}"]
    words += [f"--ignore={folder.relative_to(ROOT)}" for folder in folders]
    # contract tests that are made from the tree, not from what is installed
    words += ["-k", " and ".join(f"not {folder.name}" for folder in folders)]
    done = subprocess.run([sys.executable, "-m", "pytest", *words, *tests], cwd=ROOT, capture_output=True, text=True)
    listed = subprocess.run(
        [Path(sys.executable).with_name("ftk"), "plugins", "list"], cwd=ROOT, capture_output=True, text=True
    )
    names = [folder.name for folder in folders]
    gone = not any(f"{name} " in listed.stdout for name in names)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print(f"without {', '.join(names)}: {done.stdout.splitlines()[-1]}; listed: {'no' if gone else 'YES'}", flush=True)
    print("".join(f"  {line}\n" for line in failed), end="", flush=True)
    return done.returncode == 0 and gone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plugins", nargs="+")
    parser.add_argument("--tests", default="tests plugins")
    parser.add_argument("--together", action="store_true")
    given = parser.parse_args()
    folders = [folder_of(name) for name in given.plugins]
    passed = True
    for some in [folders] if given.together else [[folder] for folder in folders]:
        pip("uninstall", "-y", *(folder.name for folder in some))
        try:
            passed = rest_passes(some, given.tests.split()) and passed
        finally:
            pip("install", "--no-deps", *(f"-e{folder}" for folder in some))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
