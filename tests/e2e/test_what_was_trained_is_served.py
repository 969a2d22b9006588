"""The section of the README from training to serving, as a user would type it: the same words in a terminal, through
the ``openai`` client, and from transformers alone on what was exported.

The commands are read from the README. Only the training is shorter, and the port is a free one.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
STEPS = ["--max_steps", "12"]
ALONE = "\nimport sys\nassert not [name for name in sys.modules if name.split('_')[0] == 'ftk'], 'ftk was imported'\n"


def blocks():
    """The indented blocks of the section."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## What you trained is what you serve\n")[1].split("\n## ")[0]
    found, lines = [], []
    for line in (*section.splitlines(), "end"):
        if line.startswith("    ") or (lines and not line):
            lines.append(line)
        elif lines:
            found.append(textwrap.dedent("\n".join(lines)).strip())
            lines = []
    return found


def ftk(command, *more):
    words = shlex.split(command)
    assert words[0] == "ftk"
    return [sys.executable, "-c", "from ftk.cli import main; main()", *words[1:], *more]


def said(command, folder):
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(port, process):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, "the server has ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError("the server does not answer")


def test_the_readme_from_training_to_serving(tmp_path):
    pytest.importorskip("openai", reason="the openai client is not there")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    typed, asking, exporting, loading = blocks()
    training, chatting, serving = typed.splitlines()
    said(ftk(training, *STEPS), tmp_path)
    answer = said(ftk(chatting), tmp_path)
    assert len(answer.split()) > 1
    before = said(ftk(chatting, "--base"), tmp_path)
    assert answer != before
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(ftk(serving, "--api_port", str(port)), cwd=tmp_path, env=ENVIRONMENT)
    try:
        wait_for(port, server)
        assert asking.count(":8000/") == 1
        asked = said([sys.executable, "-c", asking.replace(":8000/", f":{port}/")], tmp_path)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    assert asked == answer
    said(ftk(exporting), tmp_path)
    assert said([sys.executable, "-c", loading + ALONE], tmp_path) == answer
