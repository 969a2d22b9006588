"""schemathesis against the server's own ``/openapi.json``: no answer may be a server error.

    python tests/e2e/api_schemathesis.py SCHEMATHESIS [EXAMPLES]

SCHEMATHESIS is its command, in an environment of its own. It runs twice: with bodies of every kind, most of which are
wrong, and with those alone that are as the description says. What this model cannot do is left out: embeddings and
rewards answer 501, which it counts as an error of the server.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path


def main(schemathesis: str, examples: str = "25") -> int:
    command = [sys.executable, "-c", "from ftk.cli import main; main()", "api", "ftk://tiny-chat", "--api_port", "0"]
    command += ["--template", "qwen", "--api_max_tokens", "8"]
    tester = str(Path(shutil.which(schemathesis) or schemathesis).absolute())
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stderr or () if line.startswith("http://127.0.0.1:"))
        threading.Thread(target=sys.stderr.writelines, args=(process.stderr,), daemon=True).start()
        address = line.split("/v1")[0] + "/openapi.json"
        how = ["--checks", "not_a_server_error", "--max-examples", examples, "--seed", "1"]
        left_out = ["--exclude-path-regex", "/metrics|/v1/embeddings|/v1/score/evaluation"]
        runs = [[tester, "run", address, *how, *left_out, "--mode", mode] for mode in ("all", "positive")]
        with tempfile.TemporaryDirectory() as folder:  # what it keeps between runs
            found = max([subprocess.run(run, cwd=folder).returncode for run in runs])
    finally:
        process.terminate()
        process.wait(60)
    return found or process.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
