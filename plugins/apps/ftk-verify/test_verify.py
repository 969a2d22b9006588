"""Each check passes on a sound run and fails on one that is broken in the way that it is about."""

from ftk.testing import check_plugin


def test_the_plugin_keeps_the_contract():
    assert check_plugin("verify")
