"""Answers in a JSON schema, checked by the ``jsonschema`` package; skipped where llguidance, an extra, is not there."""

import json
import sys

import jsonschema
import pytest
from ftk import DataError, Message, Prompt, Sampling
from ftk.opening import open_run

HI = Prompt((Message("user", "Hi"),))
PET = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["cat", "dog"]},
        "name": {"type": "string", "maxLength": 5},
    },
    "required": ["age", "kind", "name"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine():
    return open_run("chat", None, ["--model_name_or_path", "ftk://tiny-chat", "--template", "chatml"]).engine()


def hot(schema, seed=1, **more):
    return Sampling(max_new_tokens=100, temperature=2.0, top_k=0, top_p=1.0, seed=seed, schema=schema, **more)


def test_without_the_library_a_schema_is_refused_with_what_to_install(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    engine._shapes.__dict__.pop("_words", None)
    with pytest.raises(DataError, match=r"pip install 'ftk-hf-engine\[backend\]'"):
        engine.generate([HI], hot(PET))


def test_hot_answers_follow_the_schema_beside_others_that_do_not(engine):
    pytest.importorskip("llguidance", reason="the extra `backend` of ftk-hf-engine is not installed")
    for seed in range(4):
        free = Sampling(max_new_tokens=20, do_sample=False)
        stream = engine.stream(HI, free)
        said = next(stream)
        reply = engine.generate([HI], hot(PET, seed))[0]
        assert reply.finish == "stop"
        jsonschema.validate(json.loads(reply.text), PET)
        assert said + "".join(stream) == engine.generate([HI], free)[0].text


def test_any_object_begins_as_one(engine):
    pytest.importorskip("llguidance", reason="the extra `backend` of ftk-hf-engine is not installed")
    assert engine.generate([HI], hot({}))[0].text.startswith("{")


def test_model_generate_follows_it_too(engine, monkeypatch):
    pytest.importorskip("llguidance", reason="the extra `backend` of ftk-hf-engine is not installed")
    joined = engine.generate([HI], hot(PET))[0]
    monkeypatch.setattr(engine, "_batcher", None)
    assert engine.generate([HI], hot(PET))[0] == joined


@pytest.mark.parametrize("schema", [{"type": "objekt"}, {"$ref": "#/nowhere"}, {"not": {}}, {"type": 3}])
def test_a_schema_that_cannot_be_followed_is_refused(engine, schema):
    pytest.importorskip("llguidance", reason="the extra `backend` of ftk-hf-engine is not installed")
    with pytest.raises(DataError, match=r"^schema: cannot be followed"):
        engine.generate([HI], hot(schema))
