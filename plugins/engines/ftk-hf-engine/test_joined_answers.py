"""Answers that are made together against each made alone by ``model.generate``; sampling against transformers' warpers.

Penalties are held against OpenAI's definition, log-probabilities against a forward pass by hand.
"""

import threading
import time
from dataclasses import replace

import pytest
import torch
from ftk import DataError, Message, Prompt, Sampling
from ftk.opening import open_run
from ftk_hf_engine.batching import can_join
from ftk_hf_engine.picking import Picker, _drawn, pick
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

GREEDY = Sampling(max_new_tokens=24, do_sample=False)
TEXTS = ["Hi", "What is the capital of France?", "Tell me a long story about two dogs and a cat.", "Bye", "One, two, "]


def prompt(text):
    return Prompt((Message("user", text),))


def engine_on(name):
    words = ["--model_name_or_path", name, "--template", "chatml"]
    return open_run("chat", None, words).engine()


@pytest.fixture(scope="module")
def engine():
    return engine_on("ftk://tiny-chat")


def alone(engine, one, sampling):
    """The reply without the batcher, by ``model.generate``."""
    kept, engine._batcher = engine._batcher, None
    try:
        return engine.generate([one], sampling)[0]
    finally:
        engine._batcher = kept


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_new_tokens=24, seed=5, temperature=1.3, top_k=0, top_p=0.9)])
def test_whoever_comes_later_joins_and_everyone_gets_the_answer_of_one_alone(engine, sampling):
    expected = [alone(engine, prompt(text), sampling) for text in TEXTS]
    streams = [engine.stream(prompt(text), sampling) for text in TEXTS]
    said = [""] * len(TEXTS)
    replies = [None] * len(TEXTS)
    going = set()
    for turn in range(200):
        if turn < 3 * len(TEXTS) and turn % 3 == 0:
            going.add(turn // 3)  # a new one every third piece
        for number in sorted(going):
            try:
                said[number] += next(streams[number])
            except StopIteration as end:
                replies[number] = end.value
                going.discard(number)
    assert replies == expected
    assert said == [reply.text for reply in expected]
    assert len(set(said)) == len(TEXTS)


def test_callers_of_many_threads_get_their_own_answers(engine):
    expected = {text: alone(engine, prompt(text), GREEDY).text for text in TEXTS}
    found, errors = [], []

    def ask(number):
        text = TEXTS[number % len(TEXTS)]
        try:
            time.sleep(0.002 * number)
            answer = (
                engine.generate([prompt(text)], GREEDY)[0].text
                if number % 2
                else "".join(engine.stream(prompt(text), GREEDY))
            )
            found.append(answer == expected[text])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (errors, found) == ([], [True] * 20)


def test_one_who_goes_away_takes_the_answer_along_and_the_others_go_on(engine):
    expected = alone(engine, prompt(TEXTS[1]), GREEDY).text
    leaving, staying = (engine.stream(prompt(text), GREEDY) for text in TEXTS[2:0:-1])
    said = next(staying)
    next(leaving)
    leaving.close()
    assert said + "".join(staying) == expected
    assert all(not group.answers and group.cache is None for group in engine._batcher._groups.values())


def test_a_sampled_answer_does_not_depend_on_its_neighbours(engine):
    sampling = Sampling(max_new_tokens=16, seed=11, temperature=1.5, top_k=0, top_p=1.0)
    first = engine.generate([prompt(text) for text in TEXTS], sampling)[0]
    assert engine.generate([prompt(TEXTS[0])], sampling)[0] == first
    several = engine.generate([prompt("Hi")] * 4, replace(sampling, temperature=9.0))
    assert len({reply.text for reply in several}) > 1  # the same prompt again is another draw


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "qwen3_moe", "phi3"])
def test_families_answer_together_as_alone(family):
    engine = engine_on(f"ftk://random/{family}")
    assert can_join(engine.model)
    expected = [alone(engine, prompt(text), GREEDY).meta["tokens"] for text in TEXTS]
    assert [reply.meta["tokens"] for reply in engine.generate([prompt(text) for text in TEXTS], GREEDY)] == expected


def test_models_with_a_state_or_a_mask_of_their_own_answer_one_call_at_a_time():
    engine = engine_on("ftk://random/mamba")
    assert engine._batcher is None
    reply, drawn = (
        engine.generate([prompt("Hi")], Sampling(max_new_tokens=5, do_sample=sample, seed=1, logprobs=1))[0]
        for sample in (False, True)
    )
    assert reply.num_tokens == drawn.num_tokens == len(reply.meta["logprobs"]) == 5


@pytest.mark.parametrize(
    "asked",
    [{"top_k": 5}, {"top_k": 0, "top_p": 0.6}, {"top_k": 0, "min_p": 0.2, "top_p": 1.0}, {"top_k": 7, "top_p": 0.5}],
)
def test_candidates_are_those_of_transformers(asked):
    torch.manual_seed(0)
    logits = torch.randn(1, 40) * 2
    sampling = Sampling(temperature=0.8, **{"top_p": 1.0, **asked})
    scores = TemperatureLogitsWarper(0.8)(None, logits)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    if sampling.min_p:
        scores = MinPLogitsWarper(sampling.min_p)(None, scores)
    expected = scores.softmax(-1)[0]
    pickers = [Picker(sampling, generator=torch.Generator().manual_seed(seed)) for seed in range(4000)]
    drawn = torch.bincount(_drawn(logits.expand(4000, 40), pickers), minlength=40) / 4000
    assert set(drawn.nonzero()[:, 0].tolist()) <= set(expected.nonzero()[:, 0].tolist())
    assert torch.allclose(drawn, expected, atol=0.03)


def test_penalties_are_taken_from_what_was_said():
    logits = torch.tensor([[2.0, 1.0, -1.0, 0.5]])
    picker = Picker(Sampling(presence_penalty=0.3, frequency_penalty=0.2), tokens=[0, 0, 2])
    assert picker.changed(logits[0]).tolist() == pytest.approx([2.0 - 0.3 - 0.4, 1.0, -1.0 - 0.3 - 0.2, 0.5])
    repeated = Picker(Sampling(repetition_penalty=2.0), prompt=[0], tokens=[2])
    assert repeated.changed(logits[0]).tolist() == pytest.approx([1.0, 1.0, -2.0, 0.5])
    assert pick(logits, [Picker(Sampling(do_sample=False, presence_penalty=1.5), tokens=[0])]) == [1]


def test_log_probabilities_are_the_models_own(engine):
    sampling = Sampling(max_new_tokens=6, do_sample=True, temperature=2.0, seed=3, logprobs=2)
    reply = engine.generate([prompt("Hi")], sampling)[0]
    ids, _ = engine._shown([prompt("Hi")])[0]
    tokens = reply.meta["tokens"]
    with torch.no_grad():
        logits = engine.model(torch.tensor([ids + tokens])).logits[0, len(ids) - 1 : -1]
    expected = logits.log_softmax(-1)
    for number, told in enumerate(reply.meta["logprobs"]):
        assert told[0] == (tokens[number], pytest.approx(float(expected[number, tokens[number]]), abs=1e-4))
        best = expected[number].topk(2)
        assert [token for token, _ in told[1:]] == best.indices.tolist()
        assert [value for _, value in told[1:]] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert "logprobs" not in engine.generate([prompt("Hi")], GREEDY)[0].meta


def test_a_stop_token_of_the_request_ends_the_answer(engine):
    whole = engine.generate([prompt(TEXTS[1])], GREEDY)[0]
    stop = whole.meta["tokens"][4]
    cut = engine.generate([prompt(TEXTS[1])], Sampling(max_new_tokens=24, do_sample=False, stop_ids=(stop,)))[0]
    first = whole.meta["tokens"].index(stop)
    assert (cut.finish, cut.meta["tokens"]) == ("stop", whole.meta["tokens"][: first + 1])
    assert whole.text.startswith(cut.text)


def test_a_stream_returns_the_reply(engine):
    replies = []

    def followed():
        replies.append((yield from engine.stream(prompt("Hi"), GREEDY)))

    said = "".join(followed())
    assert replies == engine.generate([prompt("Hi")], GREEDY)
    assert replies[0].text == said


def test_beams_refuse_what_they_cannot_do(engine):
    with pytest.raises(DataError, match="beam search knows no presence_penalty"):
        engine.generate([prompt("Hi")], Sampling(num_beams=2, do_sample=False, logprobs=0))


class Listener:
    """Follows an answer; gives it up after ``most`` pieces."""

    def __init__(self, most=1000):
        self.most, self.pieces, self.result, self.over = most, [], None, threading.Event()

    def said(self, pieces):
        self.pieces += pieces
        return len(self.pieces) < self.most

    def ended(self, result):
        assert not self.over.is_set()
        self.result = result
        self.over.set()


def test_who_follows_is_told_what_a_stream_gives(engine):
    listeners = [Listener() for _ in TEXTS]
    streamed = engine.stream(prompt(TEXTS[0]), GREEDY)
    next(streamed)  # somebody else drives, too
    for text, listener in zip(TEXTS, listeners, strict=True):
        assert engine.begin(prompt(text), GREEDY, listener)
    list(streamed)
    for text, listener in zip(TEXTS, listeners, strict=True):
        assert listener.over.wait(60)
        assert listener.result == alone(engine, prompt(text), GREEDY)
        assert "".join(listener.pieces) == listener.result.text


def test_who_follows_no_more_frees_the_place_and_the_rest_goes_on(engine):
    leaves, stays = Listener(most=2), Listener()
    for listener in (leaves, stays):
        assert engine.begin(prompt(TEXTS[2]), GREEDY, listener)
    assert leaves.over.wait(60)
    assert stays.over.wait(60)
    assert isinstance(leaves.result, GeneratorExit)
    assert stays.result == alone(engine, prompt(TEXTS[2]), GREEDY)
    for _ in range(100):
        if not engine._batcher._hosting:
            break
        time.sleep(0.05)
    assert not engine._batcher._hosting
    assert not any(group.answers for group in engine._batcher._groups.values())
    assert engine._users == 0


def test_an_error_is_told_to_who_follows(engine, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._batcher, "_forward", fail)
    listener = Listener()
    assert engine.begin(prompt(TEXTS[0]), GREEDY, listener)
    assert listener.over.wait(60)
    assert str(listener.result) == "out of memory"
