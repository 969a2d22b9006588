"""Declared templates without Jinja. Reference: the same templates through their Jinja source."""

from collections import Counter
from functools import cache

import pytest
from ftk import Message
from ftk.registry import Registry
from ftk_data import TemplateOptions
from ftk_data.direct import Direct, NotPlain, QuickRenderer, quick
from ftk_data.rendering import declared
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = st.text(st.sampled_from("ab \n\t<>|{}é"), max_size=12)
REASONING = st.none() | TEXT
TURNS = st.builds(
    lambda system, pairs, flags: [
        *([Message("system", system)] if system is not None else []),
        *(
            turn
            for (question, answer, reasoning), trained in zip(pairs, flags, strict=False)
            for turn in (Message("user", question), Message("assistant", answer, reasoning or None, trained=trained))
        ),
    ],
    st.none() | TEXT,
    st.lists(st.tuples(TEXT, TEXT, REASONING), min_size=1, max_size=3),
    st.lists(st.sampled_from([None, True, False]), min_size=3, max_size=3),
)


class NoTokenizer:
    special_tokens_map = {"bos_token": "<bos>", "eos_token": "<eos>"}  # noqa: RUF012 (as transformers has it)

    def get_added_vocab(self):
        return {}


SPECS = [spec for spec in Registry.discover().specs("template").values() if not spec.target and not spec.source]


def texts(rows):
    """Rows with neighbours of one kind joined, which is all that counts."""
    made = []
    for row in rows:
        joined = []
        for segment in row:
            if joined and joined[-1][1] == segment.trained:
                joined[-1] = (joined[-1][0] + segment.text, segment.trained)
            elif segment.text:
                joined.append((segment.text, segment.trained))
        made.append(joined)
    return made


@cache
def renderers(spec, preserve):
    jinja = declared(spec, NoTokenizer(), TemplateOptions(preserve_thinking=preserve))
    return jinja, quick(jinja, spec, None, jinja.preserve_thinking)


def test_rows_are_those_of_the_jinja_source():
    """Over all installed templates with declared formats."""
    compared = Counter()

    @settings(max_examples=600, deadline=None, derandomize=True)
    @given(st.sampled_from(SPECS), st.booleans(), TURNS)
    def check(spec, preserve, turns):
        jinja, made = renderers(spec, preserve)
        if not isinstance(made, QuickRenderer):
            return
        try:
            found = made._direct.rows(turns)
        except NotPlain:
            return
        if any(message.role == "assistant" and message.trained is not False for message in turns):
            assert texts(found) == texts(jinja.render(turns))
            compared[spec.name] += 1

    check()
    assert len(compared) > len(SPECS) // 2
    assert compared.total() > 150


def test_what_takes_more_than_strings_is_left_to_jinja():
    spec = next(spec for spec in SPECS if spec.name == "chatml")
    direct = Direct(spec, {}, None, False)
    for turns in ([Message("tool", "x")], [Message("assistant", "x", reasoning="y")], [Message("user", ())]):
        with pytest.raises(NotPlain):
            direct.rows(turns)
