"""The engine against ``model.generate`` called by hand, and scores against a sum written with a loop."""

import threading

import ftk_hf_engine.engine as engine_module
import pytest
import torch
from ftk import DataError, Media, Message, Prompt, Sampling
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk_hf_engine.pieces import Pieces

GREEDY = Sampling(max_new_tokens=12, do_sample=False)
QUESTIONS = ("Hi", "What is the capital of France?", "Tell me a long story about two dogs and a cat, please.")


def prompt(text, *more):
    return Prompt((Message("user", text), *more))


@pytest.fixture(scope="module")
def run():
    return open_run("chat", None, ["--model_name_or_path", "ftk://random/llama", "--template", "chatml"])


@pytest.fixture
def engine(run):
    return run.engine()


@pytest.fixture(scope="module")
def tiny():
    run = open_run("chat", None, ["--model_name_or_path", "ftk://tiny-chat", "--template", "chatml"])
    return run.engine()


def test_the_plugin_keeps_the_contract():
    assert check_plugin("hf-engine")


def test_a_greedy_answer_is_what_the_model_generates(run, engine):
    text = f"<|im_start|>user\n{QUESTIONS[1]}<|im_end|>\n<|im_start|>assistant\n"
    ids = run.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    out = run.model(trainable=False).generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=0)
    answer = [token for token in out[0, ids.shape[1] :].tolist() if token != 2]
    reply = engine.generate([prompt(QUESTIONS[1])], GREEDY)[0]
    assert reply.text == run.tokenizer.decode(answer, skip_special_tokens=True)
    assert (reply.num_prompt_tokens, reply.num_tokens) == (ids.shape[1], out.shape[1] - ids.shape[1])
    assert reply.meta["tokens"] == out[0, ids.shape[1] :].tolist()


def test_answers_to_one_prompt_differ_with_a_seed_and_come_again_with_it(engine):
    sampling = Sampling(max_new_tokens=12, temperature=1.0, top_p=1.0, top_k=0, seed=7)
    answers = [reply.meta["tokens"] for reply in engine.generate([prompt(QUESTIONS[0])] * 4, sampling)]
    assert len({tuple(tokens) for tokens in answers}) == 4
    again = engine.generate([prompt(QUESTIONS[0])] * 4, sampling)
    assert [reply.meta["tokens"] for reply in again] == answers


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_new_tokens=12, do_sample=False, num_beams=2)])
def test_a_batch_answers_as_each_prompt_alone(tiny, sampling):
    prompts = [prompt(text) for text in QUESTIONS]
    together = tiny.generate(prompts, sampling)
    assert together == [tiny.generate([one], sampling)[0] for one in prompts]
    assert len({reply.text for reply in together}) == 3
    assert tiny.generate([], GREEDY) == []


@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(max_new_tokens=20, seed=3), Sampling(max_new_tokens=8, num_beams=2, do_sample=False)]
)
def test_streamed_pieces_joined_are_the_answer(tiny, sampling):
    for text in QUESTIONS:
        assert "".join(tiny.stream(prompt(text), sampling)) == tiny.generate([prompt(text)], sampling)[0].text


def test_a_stream_comes_in_pieces(tiny):
    assert len(list(tiny.stream(prompt(QUESTIONS[2]), GREEDY))) > 3


def test_an_answer_ends_with_its_stop_token_or_its_length(tiny):
    long = tiny.generate([prompt("Hi")], Sampling(max_new_tokens=200, do_sample=False))[0]
    assert (long.finish, long.num_tokens < 200) == ("stop", True)
    assert "<|im_end|>" not in long.text
    short = tiny.generate([prompt("Hi")], Sampling(max_new_tokens=2, do_sample=False))[0]
    assert (short.finish, short.num_tokens) == ("length", 2)
    kept = tiny.generate([prompt("Hi")], Sampling(max_new_tokens=200, do_sample=False, skip_special_tokens=False))[0]
    assert kept.text == long.text + "<|im_end|>"


def test_a_stop_string_ends_the_answer_and_is_left_out(tiny):
    whole = tiny.generate([prompt("Hi")], Sampling(max_new_tokens=50, do_sample=False))[0]
    stop = whole.text[5:8]
    sampling = Sampling(max_new_tokens=50, do_sample=False, stop=(stop, "never said"))
    cut = tiny.generate([prompt("Hi"), prompt(QUESTIONS[2])], sampling)[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish == "stop"
    assert cut.num_tokens < whole.num_tokens
    assert "".join(tiny.stream(prompt("Hi"), sampling)) == cut.text


def test_a_seed_repeats_the_answer_and_leaves_other_random_numbers_alone(engine):
    sampling = Sampling(max_new_tokens=12, temperature=1.5, top_p=1.0, top_k=0, seed=7)
    torch.manual_seed(0)
    first = engine.generate([prompt("Hi")], sampling)
    drawn = torch.rand(1)
    assert engine.generate([prompt("Hi")], sampling) == first
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)
    others = [engine.generate([prompt("Hi")], Sampling(max_new_tokens=12, top_p=1.0, top_k=0, seed=n)) for n in (8, 9)]
    assert others[0] != others[1]


def test_sampling_goes_before_what_the_model_recommends(engine, monkeypatch):
    before = engine.generate([prompt("Hi")], GREEDY)
    own = engine.model.generation_config
    for key, value in {"do_sample": True, "temperature": 5.0, "top_k": 3, "repetition_penalty": 9.0}.items():
        monkeypatch.setattr(own, key, value)
    assert engine.generate([prompt("Hi")], GREEDY) == before


def test_score_is_the_mean_log_probability_of_the_last_turn(run, engine):
    said = prompt(
        "Hi", Message("assistant", "Hello"), Message("user", "Bye"), Message("assistant", "Good bye, my friend")
    )
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
    head = run.tokenizer(text + "<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    tail = run.tokenizer("Good bye, my friend<|im_end|>", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = run.model(trainable=False)(torch.tensor([head + tail])).logits[0]
    total = sum(logits[len(head) + i - 1].log_softmax(-1)[token].item() for i, token in enumerate(tail))
    assert engine.score([said]) == pytest.approx([total / len(tail)], rel=1e-5)
    with pytest.raises(DataError, match="does not end with an answer"):
        engine.score([prompt("Hi")])


def test_special_tokens_in_a_users_text_are_special(run, engine):
    ids, _ = engine._shown([prompt("a<|im_end|>b")])[0]
    assert ids.count(run.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


def test_a_prompt_that_is_too_long_or_holds_an_image_is_refused(engine):
    with pytest.raises(DataError, match=r"tokens, but the model reads 512\. Shorten it"):
        engine.generate([prompt("word " * 600)], GREEDY)
    with pytest.raises(DataError, match="images cannot be shown to this model"):
        engine.generate([Prompt((Message("user", (Media("image", "a.png"),)),))], GREEDY)


def test_an_answer_stays_within_what_the_model_reads(engine):
    reply = engine.generate([prompt("word " * 150)], Sampling(max_new_tokens=9999, do_sample=False))[0]
    assert reply.num_prompt_tokens + reply.num_tokens <= 512


@pytest.mark.parametrize("joins", [True, False])
def test_a_stream_passes_on_what_goes_wrong(engine, monkeypatch, joins):
    def fail(**_):
        raise MemoryError("no room")

    if not joins:
        monkeypatch.setattr(engine, "_batcher", None)
    monkeypatch.setattr(engine.model, "forward", fail)
    with pytest.raises(MemoryError, match="no room"):
        list(engine.stream(prompt("Hi"), GREEDY))
    monkeypatch.undo()
    assert engine.generate([prompt("Hi")], GREEDY)


def test_a_stream_that_is_closed_stops_the_model(engine):
    pieces = engine.stream(prompt("Hi"), Sampling(max_new_tokens=400, do_sample=False))
    next(pieces)
    pieces.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "ftk-generate"]
    assert engine.generate([prompt("Hi")], GREEDY)


def test_a_model_in_training_answers_and_trains_on(engine):
    engine.model.train()
    engine.generate([prompt("Hi")], GREEDY)
    assert engine.model.training
    engine.model.eval()


def test_closing_twice_is_harmless(run):
    engine = engine_module.build(run, run.model(trainable=False))
    engine.close()
    engine.close()
    assert engine.model is None


@pytest.mark.parametrize("text", ["Grüße, 世界! 🙂🙃 end", "  spaces  and\n\nlines ", "", "a" * 40])
def test_pieces_never_hold_half_a_character_and_join_to_the_text(run, text):
    ids = run.tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = Pieces(run.tokenizer, ends=(), stops=(), skip=True)
    parts = [*(pieces.push(token) for token in ids), pieces.finish()]
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)


@pytest.mark.parametrize(
    ("stops", "left"), [(("END",), "one two "), (("xyz", "wo"), "one t"), (("one",), ""), (("no",), "one two END")]
)
def test_pieces_hold_back_what_may_be_a_stop(run, stops, left):
    ids = [token for letter in "one two END" for token in run.tokenizer(letter, add_special_tokens=False)["input_ids"]]
    pieces = Pieces(run.tokenizer, ends=(), stops=stops, skip=True)
    assert pieces.text(ids) == left
    assert pieces.stopped == (left != "one two END")
