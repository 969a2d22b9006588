"""The short form of ``killing.py``: a few kills of two stages. Reference: the runs that it leaves alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ftk.registry import Registry

SCRIPT = Path(__file__).with_name("killing.py")


def test_kills_at_random_instants_change_nothing():
    installed = Registry.discover().specs("trainer")
    stages = [name for name in ("sft", "dpo") if name in installed]
    if not stages:
        pytest.skip("no stage that trains is installed")
    command = [sys.executable, str(SCRIPT), "--kills", "3", *stages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"stages": stages, "kills": 3, "wrong": {}}
