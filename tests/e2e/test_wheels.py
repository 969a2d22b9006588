"""Every distribution as a wheel, installed without an index and without the source tree, runs the quickstart.

Third-party packages come from the environment of the tests; ftk itself only from the wheels.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = """
import importlib, os, sys
out, *given = sys.argv[1:]
for backend, folder in zip(given[::2], given[1::2]):
    os.chdir(folder)
    build = importlib.import_module(backend)
    build.build_sdist(out)
    build.build_wheel(out)
"""
"""Backends build what lies in the folder that they are called in; one process does all, as starting takes longest."""

pytest.importorskip("flit_core", reason="flit_core builds the wheels")
pytest.importorskip("hatchling", reason="hatchling builds the wheels")


def distributions():
    return [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/*/pyproject.toml"))]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a wheel and an sdist of every distribution, built by its own backend from a copy of its folder."""
    out = tmp_path_factory.mktemp("built")
    given = [(("hatchling.build" if one == ROOT else "flit_core.buildapi"), str(one)) for one in distributions()]
    command = [sys.executable, "-c", BUILD, str(out), *(word for pair in given for word in pair)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_every_distribution_has_a_wheel_and_an_sdist(built):
    names = {folder.name.replace("-", "_") for folder in distributions()[1:]} | {"ftk_kernel"}
    assert {path.name.split("-")[0] for path in built.glob("*.whl")} == names
    assert {path.name.rsplit("-", 1)[0] for path in built.glob("*.tar.gz")} == names


def test_wheels_hold_code_and_data_and_no_tests(built):
    for path in built.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
        assert not [name for name in names if Path(name).name.startswith("test_")], path.name
        assert not [name for name in names if "making/" in name or "__pycache__" in name], path.name
    with tarfile.open(next(built.glob("ftk_kernel-*.tar.gz"))) as sdist:
        assert any(name.endswith("kernel/ftk/index.json") for name in sdist.getnames())


@pytest.fixture(scope="module")
def clean(built, tmp_path_factory):
    """A virtual environment that holds the wheels and sees third-party packages only."""
    place = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*pip, *map(str, sorted(built.glob("*.whl")))], check=True)
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    (site / "third_party.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place


def environment():
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "FTK_DISABLE", "VIRTUAL_ENV")}


def ftk(clean, *words, cwd):
    command = [str(clean / "bin" / "ftk"), *words]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)


def test_nothing_comes_from_the_source_tree(clean, tmp_path):
    modules = [folder.name.replace("-", "_") for folder in distributions()[1:]]
    code = (
        f"import ftk, importlib; print(*[importlib.import_module(m).__file__ for m in {['ftk', *modules]}], sep='\\n')"
    )
    python = str(clean / "bin" / "python")
    said = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment(), check=True, capture_output=True, text=True
    )
    assert [line for line in said.stdout.splitlines() if not line.startswith(str(clean))] == []


def test_the_quickstart_runs_from_wheels(clean, tmp_path):
    for name in ("quickstart.yaml", "quickstart.jsonl"):
        shutil.copy(ROOT / "configs" / name, tmp_path)
    listed = json.loads(ftk(clean, "plugins", "list", "--json", cwd=tmp_path).stdout)
    assert {entry["distribution"] for entry in listed} == {folder.name for folder in distributions()[1:]}
    assert {entry["state"] for entry in listed} <= {"ok", "needs"}  # what only a back end of its own brings is lacking
    done = ftk(clean, "run", "quickstart.yaml", "--max_steps", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = ftk(clean, "chat", "saves/quickstart", "--prompt", "Hello!", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip()
