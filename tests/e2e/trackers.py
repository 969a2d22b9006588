"""Runs the tests of trackers with their real back ends, each in an environment of its own.

    python tests/e2e/trackers.py [tensorboard wandb mlflow swanlab trackio]

Run it in the environment that ``pip install -r requirements.txt`` has made: each new one sees its packages, gets what
the plugin's extra ``backend`` names, and is thrown away. Minutes and a network for each, so it is not part of the
suite; CI runs TensorBoard's. Exit code 1 when a test failed.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "plugins" / "trackers"


def tested(name: str) -> bool:
    """Whether the tests of ``ftk-NAME`` pass with its back end."""
    plugin = FOLDER / f"ftk-{name}"
    extras = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    with tempfile.TemporaryDirectory(prefix=f"ftk-{name}-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        inside = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
        seen = sysconfig.get_path("purelib")
        (inside / "outer.pth").write_text(f"import site; site.addsitedir({seen!r})\n")
        kept = f"torch=={version('torch').partition('+')[0]}"
        subprocess.run([python, "-m", "pip", "install", "-q", *extras["backend"], kept], check=True)
        return subprocess.run([python, "-m", "pytest", "-n", "0", "-q", str(plugin)]).returncode == 0


def main() -> int:
    names = sys.argv[1:] or sorted(path.name.removeprefix("ftk-") for path in FOLDER.glob("ftk-*"))
    failed = [name for name in names if not tested(name)]
    print(f"failed: {', '.join(failed)}" if failed else f"passed: {', '.join(names)}")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
