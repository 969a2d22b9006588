"""The short form of ``tests/e2e/api_mutations.py``, with a fixed seed: right bodies, bent, and never a 500."""

import http.client
import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "tests" / "e2e" / "api_mutations.py"


def test_bent_bodies_are_refused_or_answered_and_the_server_goes_on(served, tiny_engine, calling):
    spec = importlib.util.spec_from_file_location("api_mutations", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with served(tiny_engine, run=calling, api_max_tokens=8) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        statuses = set()
        for path, body in script.mutated(300, seed=6):
            status, content = script.send(connection, path, body)
            assert script.problem(status, content) == "", (path, body, content)
            statuses.add(status)
        connection.close()
    assert {200, 400} <= statuses
