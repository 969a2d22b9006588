"""What the tests of template plugins share: comparing with published renders, skipped where those are absent."""

import json
from datetime import datetime
from functools import cache
from pathlib import Path

import pytest
from ftk_data import TemplateOptions, environment
from ftk_data.conversations import UNSET
from ftk_data.environment import render_marked
from ftk_data.rendering import declared
from hypothesis import settings

settings.register_profile("ftk", deadline=None)  # a machine may be busy with something else
settings.load_profile("ftk")
GOLDEN = Path(__file__).parents[3] / "shared" / "golden"


@cache
def rows_of(file):
    return [json.loads(line) for line in (GOLDEN / file).open(encoding="utf-8")]


class NoTokenizer:
    """What a renderer asks of a tokenizer."""

    def __init__(self, bos_token, eos_token, added=()):
        self.added = added
        tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self.special_tokens_map = {key: value for key, value in tokens.items() if value is not None}

    def get_added_vocab(self):
        return {token: number for number, token in enumerate(self.added)}


@pytest.fixture(autouse=True)
def _frozen_clock(monkeypatch):
    monkeypatch.setattr(environment, "_strftime_now", lambda form: datetime(2025, 7, 10, 12).strftime(form))


@pytest.fixture
def make_renderer():
    """``make_renderer(spec, bos_token, eos_token, added, **template options)``; ``added`` are the tokenizer's own."""

    def make(spec, bos_token=None, eos_token=None, added=(), **options):
        thinking = options.get("enable_thinking", UNSET)
        return declared(spec, NoTokenizer(bos_token, eos_token, added), TemplateOptions(**options), thinking)

    return make


@pytest.fixture
def check_published(make_renderer):
    """``check_published(spec, family, skip)``: every render of a published template equals the named template's.

    Compared are the training source and the one that is saved. ``skip(case)`` leaves a case out; cases that the
    published template refuses are left out, too. Returns how many were compared.
    """

    def check(spec, family, skip=lambda case: False):
        if not GOLDEN.exists():
            pytest.skip(f"{GOLDEN} is not there")
        compared = 0
        for case in rows_of("renders.jsonl"):
            if case["family"] != family or "rendered" not in case or skip(case):
                continue
            made = make_renderer(spec, case["bos_token"], case["eos_token"])
            variables = {"add_generation_prompt": case["add_generation_prompt"], "tools": case["tools"], **made.tokens}
            for source in (made.source, made.jinja()):
                text, _ = render_marked(source, case["messages"], **variables, **case["template_kwargs"])
                assert text == case["rendered"], case["case"]
            compared += 1
        return compared

    return check


@pytest.fixture
def peer_cases():
    """``peer_cases(template)``: LLaMA-Factory's exact strings for a template (``llamafactory_templates.jsonl``)."""

    def cases(template):
        if not GOLDEN.exists():
            pytest.skip(f"{GOLDEN} is not there")
        return [case for case in rows_of("llamafactory_templates.jsonl") if case["template"] == template]

    return cases
