"""The plugins of ``contrib/`` as pip would leave them, without pip: they are not in requirements.txt."""

from __future__ import annotations

import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftk.testing import on_path

FOLDERS = sorted(path.parent for path in (Path(__file__).parents[2] / "contrib").glob("*/pyproject.toml"))


@contextmanager
def contributed() -> Iterator[tuple[str, ...]]:
    """Let the registry find them; the names of their distributions. Their modules can be imported from then on."""
    sys.path += [str(folder) for folder in FOLDERS if str(folder) not in sys.path]
    with tempfile.TemporaryDirectory(prefix="ftk-contrib-") as site, on_path(Path(site)):
        yield tuple(_write(folder, Path(site)) for folder in FOLDERS)


def _write(folder: Path, site: Path) -> str:
    """The metadata and the entry points of a plugin."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    name, version = str(project["name"]), project["version"]
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {line}\n" for line in project["dependencies"])
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    points = "".join(f"{point} = {module}\n" for point, module in project["entry-points"]["ftk"].items())
    (info / "entry_points.txt").write_text(f"[ftk]\n{points}")
    return name
