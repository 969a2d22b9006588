"""The kernel's index of first-party names is what the plugins of this tree declare."""

import importlib.util
import json
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("make_index", Path(__file__).with_name("make_index.py"))
make_index = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_index)


@pytest.fixture(scope="module")
def index():
    return json.loads(make_index.INDEX.read_text(encoding="utf-8"))


def test_the_index_is_up_to_date():
    wanted = make_index.as_text(make_index.make_index())
    assert make_index.INDEX.read_text(encoding="utf-8") == wanted, "run python tests/contract/make_index.py"


def test_a_planned_distribution_owns_nothing_that_is_installed(index):
    assert not index["planned"].keys() & index["installed"].keys()
    assert not index["derived"].keys() & (index["installed"].keys() | index["planned"].keys())


def test_only_our_own_distributions_are_named(index):
    assert set(index["installed"].values()) <= make_index.first_party() | {"ftk-kernel"}
    assert "ftk" not in {*index["installed"].values(), *index["planned"].values()}
