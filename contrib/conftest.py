"""Contributed plugins are not installed by requirements.txt; their tests see them as pip would have left them."""

import importlib
import sys
import tomllib
from pathlib import Path

import pytest
from ftk.testing import on_path

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/pyproject.toml"))

for folder in FOLDERS:
    sys.path.append(str(folder))


def installed(folder: Path, site: Path) -> None:
    """Write what the entry points and the metadata of a plugin would be into ``site``."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {line}\n" for line in project["dependencies"])
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{needs}"
    )
    points = "".join(f"{name} = {module}\n" for name, module in project["entry-points"]["ftk"].items())
    (info / "entry_points.txt").write_text(f"[ftk]\n{points}")


@pytest.fixture(scope="module", autouse=True)
def contributed(tmp_path_factory):
    site = tmp_path_factory.mktemp("contributed")
    for folder in FOLDERS:
        installed(folder, site)
    with on_path(site):
        importlib.invalidate_caches()
        yield
