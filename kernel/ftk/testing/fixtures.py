"""The pytest fixtures of ftk, there as soon as the kernel is installed (entry point group ``pytest11``).

``@pytest.mark.needs("ftk-freeze")`` leaves a test out where a plugin that it takes part in is not installed.

Loaded by every pytest of the environment, so the kernel is imported only when a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from click.testing import Result

    from ftk.testing.runs import Finished


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*distributions): is skipped where one of them is not installed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in (name for marker in item.iter_markers("needs") for name in marker.args):
        try:
            distribution(name)
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed")


@pytest.fixture
def ftk_run(tmp_path: Path) -> Callable[..., Finished]:
    """``ftk_run(key=value, ...)``: a run of two steps in a temporary folder; see ``ftk.testing.run_in``."""
    from ftk.testing.runs import run_in

    def run(**settings: Any) -> Finished:
        return run_in(tmp_path, **settings)

    return run


@pytest.fixture
def ftk_cli() -> Callable[..., Result]:
    """``ftk_cli("plugins", "list")``: the command line in this process; gives click's ``Result``."""
    from click.testing import CliRunner

    from ftk.cli import main

    def call(*words: str, **options: Any) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], **options)

    return call


@pytest.fixture
def fake_plugin(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """``fake_plugin("name", source)``: an installed plugin while the test runs; see ``ftk.testing.write_plugin``."""
    import importlib

    from ftk.testing.fakes import on_path, write_plugin

    folder = tmp_path / "installed"

    def write(name: str, source: str, **options: Any) -> Path:
        info = write_plugin(folder, name, source, **options)
        importlib.invalidate_caches()
        return info

    with on_path(folder):
        yield write
