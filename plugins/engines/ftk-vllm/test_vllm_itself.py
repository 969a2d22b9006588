"""The engine with vLLM itself, against the other engine (transformers' own generation, checked in ftk-hf-engine).

``tests/e2e/vllm_environment.py`` makes an environment with a build for CPUs and runs them there.
"""

import os
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from ftk import DataError, Message, Prompt, Sampling
from ftk.opening import open_run
from peft import LoraConfig, get_peft_model

BASE = ["--model_name_or_path", "ftk://tiny-chat", "--template", "chatml"]
SMALL = ["--infer_backend", "vllm", "--vllm_config", "{enforce_eager: true, max_model_len: 256}"]
GREEDY = Sampling(max_new_tokens=12, do_sample=False)
TEXTS = ("Hi", "What is the capital of France?", "Tell me a story.", "Name a colour.")
ASKED = [Prompt((Message("user", text),)) for text in TEXTS]

pytestmark = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vllm is not installed: python tests/e2e/vllm_environment.py"
)


def lora(folder, seed, **config):
    """An adapter that changes what the model says."""
    torch.manual_seed(seed)
    base = open_run("chat", None, BASE).model(trainable=False)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **config))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in ("mine", "french")}
    for seed, folder in enumerate(folders.values()):
        lora(folder, seed)
    return folders


@pytest.fixture(scope="module")
def engines(adapters):
    """The other engine and vLLM, on one base with one adapter that requests name."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    words = [*BASE, "--lora_modules", f"{{french: {adapters['french']}}}"]
    engine = open_run("chat", None, [*words, *SMALL]).engine()
    yield open_run("chat", None, words).engine(), engine
    engine.close()


@pytest.mark.parametrize("adapter", [None, "french"])
def test_greedy_tokens_are_those_of_transformers(engines, adapter):
    expected, found = (engine.generate(ASKED, replace(GREEDY, adapter=adapter)) for engine in engines)
    assert found == expected
    assert all(reply.text for reply in found)


def test_an_adapter_answers_otherwise_than_the_base(engines):
    base, tuned = (engines[1].generate(ASKED, replace(GREEDY, adapter=name)) for name in (None, "french"))
    assert base != tuned


def test_a_batch_of_64_is_answered_in_order(engines):
    prompts = [Prompt((Message("user", f"{text} {number}"),)) for number in range(16) for text in TEXTS]
    expected, found = (engine.generate(prompts, GREEDY) for engine in engines)
    assert found == expected


def test_streamed_pieces_are_the_answer(engines):
    said = [list(engines[1].stream(prompt, GREEDY)) for prompt in ASKED]
    assert ["".join(pieces) for pieces in said] == [one.text for one in engines[0].generate(ASKED, GREEDY)]
    assert sum(map(len, said)) > len(ASKED)  # a short answer may come at once where the reader is slow


def test_stop_strings_and_stop_tokens_end_an_answer(engines):
    text = engines[0].generate([ASKED[1]], GREEDY)[0]
    asked = [replace(GREEDY, stop=("France",)), replace(GREEDY, stop_ids=(text.meta["tokens"][2],))]
    for sampling in (*asked, replace(GREEDY, skip_special_tokens=False)):
        expected, found = (engine.generate(ASKED, sampling) for engine in engines)
        assert found == expected
    assert "France" not in engines[1].generate([ASKED[1]], asked[0])[0].text


def test_log_probabilities_are_the_models_own(engines):
    sampling = replace(GREEDY, logprobs=3, repetition_penalty=1.2, presence_penalty=0.1, frequency_penalty=0.1)
    expected, found = (engine.generate(ASKED, sampling) for engine in engines)
    for one, other in zip(expected, found, strict=True):
        assert other.meta["tokens"] == one.meta["tokens"]
        for mine, its in zip(one.meta["logprobs"], other.meta["logprobs"], strict=True):
            assert [token for token, _ in its] == [token for token, _ in mine]
            assert [value for _, value in its] == pytest.approx([value for _, value in mine], abs=1e-3)


def test_scores_are_those_of_transformers(engines):
    told = [Prompt((*prompt.messages, Message("assistant", "It is Paris."))) for prompt in ASKED]
    expected, found = (engine.score(told) for engine in engines)
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_seed_repeats_an_answer_and_answers_of_a_call_differ(engines):
    sampling = Sampling(max_new_tokens=12, temperature=1.5, top_p=1.0, top_k=0, seed=7)
    first, again = (engines[1].generate([ASKED[2]] * 4, sampling) for _ in range(2))
    assert first == again
    assert len({reply.text for reply in first}) == 4


def test_an_answer_follows_a_schema(engines):
    form = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False}
    text = engines[1].generate([ASKED[0]], replace(GREEDY, schema=form, max_new_tokens=40))[0].text
    assert text.replace(" ", "").replace("\n", "").startswith('{"a":"x"')


def test_what_vllm_refuses_is_one_line_and_the_next_is_answered(engines):
    with pytest.raises(DataError, match=r"^vllm: .*logprobs"):
        engines[1].generate(ASKED, replace(GREEDY, logprobs=500))
    assert engines[1].generate([ASKED[0]], GREEDY)[0].text


def test_the_runs_own_adapter_answers_and_training_hands_over_another(adapters, tmp_path):
    own = [*BASE, "--adapter_name_or_path", str(adapters["mine"])]
    expected = open_run("chat", None, own).engine().generate(ASKED, GREEDY)
    engine = open_run("chat", None, [*own, *SMALL]).engine()
    try:
        assert [one.text for one in engine.generate(ASKED, GREEDY)] == [one.text for one in expected]
        for seed in (5, 6):
            model = lora(tmp_path / str(seed), seed)
            engine.refresh(model)
            merged = open_run("chat", None, [*BASE, "--adapter_name_or_path", str(tmp_path / str(seed))])
            assert engine.generate(ASKED, GREEDY) == merged.engine().generate(ASKED, GREEDY)
    finally:
        engine.close()


def test_what_is_no_plain_adapter_is_merged(tmp_path):
    lora(tmp_path, 3, use_dora=True)
    words = [*BASE, "--adapter_name_or_path", str(tmp_path)]
    engine = open_run("chat", None, [*words, *SMALL]).engine()
    try:
        assert engine._loads.made is not None
        assert engine.generate(ASKED, GREEDY) == open_run("chat", None, words).engine().generate(ASKED, GREEDY)
    finally:
        folder = engine._loads.made
        engine.close()
    assert not folder.exists()
