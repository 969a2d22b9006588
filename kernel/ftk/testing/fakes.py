"""Plugins made on the spot: a module and its ``dist-info``, as pip would have left them, without pip."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

from ftk.plugins import GROUP, KERNEL


def write_plugin(
    folder: Path,
    name: str,
    source: str,
    *,
    distribution: str | None = None,
    version: str = "0.1",
    requires: str = f"{KERNEL}>=0.1",
    module: str | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write an installed plugin into ``folder`` and return its ``dist-info``; :func:`on_path` makes it found.

    name: the entry point. source: the text of its module; files: further modules, file name → text.
    distribution, module: ``ftk-NAME`` and ``ftk_NAME`` unless given. requires: one ``Requires-Dist``, or empty.
    """
    distribution = distribution or f"ftk-{name}"
    module = module or f"ftk_{name}".replace("-", "_").replace(".", "_")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in {f"{module}.py": source, **(files or {})}.items():
        (folder / path).write_text(dedent(text), encoding="utf-8")
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {module}\n", encoding="utf-8")
    return info


@contextmanager
def on_path(folder: Path) -> Iterator[Path]:
    """Put ``folder`` first on ``sys.path``; afterwards take it off and forget every module that came from it."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        inside = str(folder.resolve())
        for name, module in list(sys.modules.items()):
            origin = getattr(module, "__file__", None)
            if origin and str(Path(origin).resolve()).startswith(inside):
                del sys.modules[name]
        importlib.invalidate_caches()
