"""Tests of plugins that are not installed are left out, and the first lines of pytest's output say which."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

HERE = Path(__file__).parent


def not_installed():
    missing = []
    for pyproject in sorted(HERE.glob("*/*/pyproject.toml")):
        try:
            distribution(pyproject.parent.name)
        except PackageNotFoundError:
            missing.append(pyproject.parent)
    return missing


MISSING = not_installed()


def pytest_ignore_collect(collection_path):
    return True if any(folder in (collection_path, *collection_path.parents) for folder in MISSING) else None


def pytest_report_header():
    return [f"not installed, so not tested: {folder.name}" for folder in MISSING]
