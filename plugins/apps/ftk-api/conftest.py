"""A server in a thread, on the embedded model or on an engine that says what a test wants."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ftk import Reply
from ftk.opening import open_run
from ftk_api import ApiOptions
from ftk_api.command import server_of


class Scripted:
    """An engine that says ``texts`` (prompt's last words → answer), a letter at a time; ``pause`` seconds before each.

    asked: every (prompt, sampling). made: letters of all answers.
    """

    adapters = ("poet",)

    def __init__(self, texts=None, pause=0.0):
        self.texts, self.pause = texts or {}, pause
        self.asked, self.made, self.closed = [], 0, 0

    def text(self, prompt):
        said = prompt.text if prompt.text is not None else prompt.messages[-1].text
        return self.texts.get(said, f"You said {said}.")

    def stream(self, prompt, sampling):
        self.asked.append((prompt, sampling))
        text = self.text(prompt)
        try:
            for letter in text:
                time.sleep(self.pause)
                self.made += 1
                yield letter
            return Reply(text, "stop", 3, len(text))
        finally:
            self.closed += 1

    def score(self, prompts):
        return [-float(len(one.messages)) for one in prompts]

    def reward(self, prompts):
        return [float(len(one.text)) for one in prompts]

    def embed(self, texts):
        return [[1.0, float(len(one))] for one in texts]

    def close(self):
        pass


@pytest.fixture(scope="session")
def scripted():
    return Scripted


@pytest.fixture(scope="session")
def tiny():
    words = ["--model_name_or_path", "ftk://tiny-chat", "--template", "chatml", "--do_sample", "false"]
    return open_run("api", None, words)


@pytest.fixture(scope="session")
def calling():
    """A run whose template reads calls, for engines that say them."""
    return open_run("api", None, ["--model_name_or_path", "ftk://tiny-chat", "--template", "qwen"])


@pytest.fixture(scope="session")
def tiny_engine(tiny):
    return tiny.engine()


@pytest.fixture(scope="session")
def served(tiny):
    """``with served(engine, key=None, **options) as server``: ``url``, ``port``, ``desk``, and ``end()``."""

    @contextmanager
    def serve(engine, key=None, run=tiny, **options):
        chosen = replace(run.options(ApiOptions), **{"api_port": 0, **options})
        server = server_of(run, engine, chosen, key)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        for _ in range(1000):
            if server.started or not thread.is_alive():
                break
            time.sleep(0.01)

        def end():
            server.handle_exit(15, None)
            thread.join(30)
            assert not thread.is_alive()

        url = f"http://127.0.0.1:{server.port}"
        try:
            yield SimpleNamespace(url=url, port=server.port, desk=server.desk, engine=engine, server=server, end=end)
        finally:
            server.force_exit = True
            server.handle_exit(15, None)
            thread.join(30)

    return serve
