"""Contributed plugins keep the contract as if they were installed, and each says who keeps it (design, section 2)."""

import pytest
from contributed import FOLDERS, contributed
from ftk.registry import Registry
from ftk.testing import check_plugin


@pytest.fixture(scope="module")
def distributions():
    with contributed() as found:
        yield found


def test_the_contract_holds_for_each(distributions):
    assert distributions == tuple(folder.name for folder in FOLDERS)
    usable = {record.distribution for record in Registry.discover().records if record.usable}
    for name in distributions:
        assert name in usable
        assert check_plugin(name)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_owner_is_named(folder):
    assert "\nOwner: " in (folder / "README.md").read_text(encoding="utf-8")
