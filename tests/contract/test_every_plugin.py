"""Every installed plugin, ours and others', passes the contract tests of ftk.testing."""

import pytest
from ftk.registry import Registry
from ftk.testing import check_plugin


@pytest.mark.parametrize("distribution", sorted({record.distribution for record in Registry.discover().records}))
def test_the_contract_holds(distribution):
    assert check_plugin(distribution)
