"""The tests of contributed plugins see them installed, without pip."""

import sys

import pytest
from contributed import FOLDERS, contributed

sys.path += [str(folder) for folder in FOLDERS]


@pytest.fixture(scope="module", autouse=True)
def contributed_plugins():
    with contributed():
        yield
