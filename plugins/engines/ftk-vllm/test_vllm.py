"""The vLLM engine: what it asks vLLM for, against a stand-in for its few classes. ``test_vllm_itself.py`` asks vLLM.

The fields and their meaning are those of vLLM 0.32's ``SamplingParams`` and ``RequestOutput``.
"""

import asyncio
import os
import sys
import threading
import types
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest
from ftk import ConfigError, DataError, Message, ModelError, Prompt, Sampling, plugins
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk_data.asking import Asking
from ftk_peft.serving import Served
from ftk_vllm.engine import VllmEngine
from ftk_vllm.loading import arguments_of, quiet
from ftk_vllm.loop import Loop
from ftk_vllm.sampling import params_of
from peft import LoraConfig, get_peft_model

WORDS = ["--model_name_or_path", "ftk://tiny-chat", "--infer_backend", "vllm"]
GREEDY = Sampling(max_new_tokens=4, do_sample=False)
ASKED = Prompt((Message("user", "Hi"),))


@dataclass
class Params:
    output_kind: str
    fields: dict = field(default_factory=dict)


class StandIn:
    """Answers every request with the tokens 5, 6, 7 ... as vLLM's AsyncLLM does, an output for each or one for all."""

    def __init__(self, fails=None, ends=True, reads=None):
        self.asked, self.closed, self.most, self._now = [], 0, 0, 0
        self.fails, self.ends, self.reads = fails, ends, reads
        self.loras, self.shut = [], 0

    async def generate(self, prompt, sampling_params, request_id, lora_request=None):
        self.asked.append(SimpleNamespace(prompt=prompt, params=sampling_params, id=request_id, lora=lora_request))
        self._now += 1
        self.most = max(self.most, self._now)
        made, count = [], sampling_params.fields["max_tokens"]
        try:
            while self.ends is False or len(made) < count:
                await asyncio.sleep(0.001)
                if self.fails is not None:
                    raise self.fails
                made.append(5 + len(made))
                if sampling_params.output_kind == "delta":
                    yield self._output(prompt, made[-1:], len(made) == count, sampling_params)
            if sampling_params.output_kind != "delta":
                yield self._output(prompt, made, True, sampling_params)
        finally:
            self._now -= 1
            self.closed += 1

    def _output(self, prompt, tokens, last, params):
        ids = self.reads or prompt["prompt_token_ids"]
        if (only := params.fields.get("allowed_token_ids")) is not None:
            tokens = only
        best = {1: SimpleNamespace(logprob=-0.5, rank=1)}
        probs = [{token: SimpleNamespace(logprob=-1.0, rank=2), **best} for token in tokens]
        text = "".join(f"<{token}>" for token in tokens)
        one = SimpleNamespace(
            text=text, token_ids=list(tokens), finish_reason="stop" if last else None, stop_reason=None, logprobs=probs
        )  # fmt: skip
        said = [None, *({token: SimpleNamespace(logprob=-0.25 * place)} for place, token in enumerate(ids[1:], 1))]
        return SimpleNamespace(prompt_token_ids=ids, outputs=[one], prompt_logprobs=said)

    async def add_lora(self, request):
        self.loras.append(request.lora_int_id)

    async def remove_lora(self, number):
        self.loras.remove(number)

    def shutdown(self):
        self.shut += 1


@pytest.fixture(scope="module", autouse=True)
def vllm():
    """The names that the engine imports from vLLM; the kernel looks for its spec."""
    kinds = SimpleNamespace(DELTA="delta", FINAL_ONLY="final")
    top, params, lora = (types.ModuleType(name) for name in ("vllm", "vllm.sampling_params", "vllm.lora.request"))
    top.SamplingParams = lambda output_kind, **fields: Params(output_kind, fields)
    params.RequestOutputKind, params.StructuredOutputsParams = kinds, lambda **form: form
    lora.LoRARequest = lambda name, number, folder: SimpleNamespace(
        lora_name=name, lora_int_id=number, lora_path=folder
    )
    top.__spec__ = ModuleSpec("vllm", None)
    with pytest.MonkeyPatch.context() as patch:
        for module in (top, params, lora, types.ModuleType("vllm.lora")):
            patch.setitem(sys.modules, module.__name__, module)
        plugins._is_installed.cache_clear()
        yield
    plugins._is_installed.cache_clear()


@pytest.fixture(scope="module")
def run():
    return open_run("chat", None, WORDS)


@pytest.fixture
def made(run):
    engines = []

    def make(client, **served):
        asking = Asking.of(run, (2,), 64)
        engines.append(VllmEngine(client, Loop("test"), asking, Served("base", **served)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def test_the_plugin_keeps_the_contract():
    assert check_plugin("vllm")


def test_every_field_of_sampling_reaches_vllm():
    sampling = Sampling(
        max_new_tokens=9, temperature=0.5, top_p=0.8, top_k=7, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3, stop=("END", ""), stop_ids=(9, 4), seed=3, logprobs=2, skip_special_tokens=False,
        schema={"type": "object"},
    )  # fmt: skip
    fields = params_of(sampling, [4, 2], ["###"], room=8)
    assert fields == {
        "temperature": 0.5, "top_p": 0.8, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 0.2,
        "frequency_penalty": 0.3, "stop": ["###", "END"], "stop_token_ids": [2, 4, 9], "seed": 3, "logprobs": 2,
        "skip_special_tokens": False, "spaces_between_special_tokens": False, "max_tokens": 8,
        "structured_outputs": {"json": {"type": "object"}},
    }  # fmt: skip
    assert params_of(replace(sampling, schema={}), [], [], 8)["structured_outputs"] == {"json_object": True}
    assert params_of(replace(sampling, do_sample=False), [], [], 8)["temperature"] == 0
    assert params_of(sampling, [], [], 8, number=1)["seed"] != 3
    with pytest.raises(DataError, match="num_beams: 2: vllm has no beam search"):
        params_of(replace(sampling, num_beams=2), [], [], 8)


def test_a_prompt_goes_as_the_tokens_that_the_other_engine_has(made, run):
    client = StandIn()
    other = open_run("chat", None, WORDS[:2]).engine()
    prompts = [
        ASKED,
        Prompt((Message("user", "A"), Message("assistant", "B"), Message("user", "C"))),
        Prompt((), text="Hi"),
        Prompt((), text=(5, 6)),
    ]
    replies = made(client).generate(prompts, GREEDY)
    expected = [ids for ids, _ in other._shown(prompts)]
    assert sorted(one.prompt["prompt_token_ids"] for one in client.asked) == sorted(expected)
    assert [reply.num_prompt_tokens for reply in replies] == [len(ids) for ids in expected]
    assert [reply.text for reply in replies] == ["<5><6><7><8>"] * 4
    assert replies[0].meta == {"tokens": [5, 6, 7, 8]}


def read(stream):
    """The pieces of a stream, and what it returns."""
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as ended:
            return pieces, ended.value


def test_a_stream_joins_to_the_answer_and_returns_it(made):
    engine = made(StandIn())
    sampling = replace(GREEDY, logprobs=1)
    pieces, reply = read(engine.stream(ASKED, sampling))
    assert pieces == ["<5>", "<6>", "<7>", "<8>"]
    assert reply == engine.generate([ASKED], sampling)[0]
    assert reply.meta["logprobs"] == [((token, -1.0), (1, -0.5)) for token in (5, 6, 7, 8)]


def test_an_ending_that_is_shown_is_in_the_text(made, run):
    shown = run.tokenizer.decode([8])
    text = made(StandIn()).generate([ASKED], replace(GREEDY, skip_special_tokens=False))[0].text
    assert text == f"<5><6><7><8>{shown}"


def test_closing_a_stream_ends_the_request(made):
    client = StandIn(ends=False)
    stream = made(client).stream(ASKED, GREEDY)
    next(stream)
    stream.close()
    for _ in range(200):
        if client.closed:
            break
        threading.Event().wait(0.01)
    assert client.closed == 1


def test_many_threads_are_answered_at_once(made):
    client = StandIn()
    engine = made(client)
    said = []
    threads = [threading.Thread(target=lambda: said.append("".join(engine.stream(ASKED, GREEDY)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["<5><6><7><8>"] * 8
    assert client.most > 1
    assert len({one.id for one in client.asked}) == 8


class VLLMClientError(Exception):
    """vLLM's class of errors that the request has caused."""


class EngineDeadError(Exception):
    __module__ = "vllm.v1.engine.exceptions"


@pytest.mark.parametrize(
    ("raised", "error", "text"),
    [
        (ValueError("max allowed: 20"), DataError, "^vllm: max allowed: 20$"),
        (VLLMClientError("no such\nlanguage"), DataError, "^vllm: no such language$"),
        (EngineDeadError("EngineCore died"), ModelError, "^vllm has stopped: EngineCore died$"),
        (RuntimeError("gone"), ModelError, "^vllm has stopped: gone$"),
    ],
)
def test_what_vllm_raises_is_one_line(made, raised, error, text):
    engine = made(StandIn(fails=raised))
    with pytest.raises(error, match=text):
        engine.generate([ASKED] * 3, GREEDY)
    with pytest.raises(error, match=text):
        list(engine.stream(ASKED, GREEDY))


def test_adapters_answer_by_their_names(made, tmp_path):
    client = StandIn()
    engine = made(client, own="mine", named={"french": "fr"})
    engine.generate([ASKED], GREEDY)
    engine.generate([ASKED], replace(GREEDY, adapter="french"))
    assert [one.lora.lora_path for one in client.asked] == ["mine", "fr"]
    assert engine.adapters == ("french",)
    with pytest.raises(DataError, match=r"adapter dutch: is not there\. There are french"):
        engine.generate([ASKED], replace(GREEDY, adapter="dutch"))


def test_a_score_is_the_mean_over_the_answer(made, run):
    asked = Asking.of(run, (2,), 64).answered(Prompt((*ASKED.messages, Message("assistant", "Hello there."))))
    places = [place for place, counts in enumerate(asked.scored) if counts]
    (score,) = made(StandIn()).score([Prompt((*ASKED.messages, Message("assistant", "Hello there.")))])
    assert score == pytest.approx(-0.25 * sum(places) / len(places))
    with pytest.raises(DataError, match="does not end with an answer"):
        made(StandIn()).score([ASKED])


def test_where_adapters_may_be_each_token_is_scored_by_a_request(made):
    client = StandIn()
    client.vllm_config = SimpleNamespace(lora_config="some")
    told = Prompt((*ASKED.messages, Message("assistant", "Hello there.")))
    assert made(client, own="mine").score([told]) == [-1.0]
    read = [one.prompt["prompt_token_ids"] for one in client.asked]
    follows = [one.params.fields["allowed_token_ids"] for one in client.asked]
    assert all(after == [*before, *token] for before, token, after in zip(read, follows, read[1:], strict=False))
    assert follows[-1] == [2]
    assert {one.lora.lora_path for one in client.asked} == {"mine"}


def test_a_model_in_training_hands_over_its_adapter(made, tmp_path):
    learning = open_run("chat", None, ["--model_name_or_path", "ftk://random/llama"]).model(trainable=False)
    client = StandIn()
    engine = made(client)
    with pytest.raises(ConfigError, match=r"and nothing else \(it has no adapter\)"):
        engine.refresh(learning)
    model = get_peft_model(learning, LoraConfig(r=2, target_modules=["q_proj"]))
    for _ in range(2):
        engine.refresh(model)
    engine.generate([ASKED], GREEDY)
    assert client.loras == [client.asked[-1].lora.lora_int_id]
    folder = client.asked[-1].lora.lora_path
    assert (Path(folder) / "adapter_model.safetensors").is_file()
    engine.close()
    assert not Path(folder).exists()
    model.peft_config["default"].use_dora = True
    with pytest.raises(ConfigError, match="use_dora"):
        engine.refresh(model)


def test_closing_twice_is_harmless_and_later_calls_are_told(made):
    client = StandIn()
    engine = made(client)
    engine.close()
    engine.close()
    assert client.shut == 1
    with pytest.raises(ModelError, match="vllm: is closed"):
        engine.generate([ASKED], GREEDY)


def arguments(*words, **served):
    run = open_run("chat", None, [*WORDS, *words])
    return arguments_of(run, Served(run.model_path, limit=2048, **served))


def test_the_keys_reach_vllm_with_llamafactorys_defaults():
    made = arguments()
    assert (made["max_model_len"], made["gpu_memory_utilization"], made["enforce_eager"]) == (2048, 0.7, False)
    assert (made["dtype"], made["tensor_parallel_size"], made["seed"]) == ("float32", 1, 42)
    assert "enable_lora" not in made
    changed = arguments("--vllm_maxlen", "128", "--infer_dtype", "bfloat16", "--vllm_config", '{"max_num_seqs": 3}')
    assert (changed["max_model_len"], changed["dtype"], changed["max_num_seqs"]) == (128, "bfloat16", 3)


@pytest.mark.parametrize(("rank", "taken"), [(4, 32), (33, 64), (512, 512)])
def test_the_largest_rank_follows_the_adapters(rank, taken):
    made = arguments(own="a", named={"b": "c"}, rank=rank)
    assert (made["enable_lora"], made["max_loras"], made["max_lora_rank"]) == (True, 2, taken)


def test_a_rank_that_is_said_to_be_less_is_an_error():
    with pytest.raises(ConfigError, match="vllm_max_lora_rank: 8: an adapter has rank 16"):
        arguments("--vllm_max_lora_rank", "8", own="a", rank=16)


def test_nothing_is_told_to_anybody(run, monkeypatch):
    for key in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(key, "0")
        monkeypatch.delenv(key)
    quiet(run)
    assert [os.environ[key] for key in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE")] == ["1"] * 3


@pytest.mark.needs("ftk-bnb")
def test_a_quantizer_of_the_run_is_refused():
    with pytest.raises(ConfigError, match="vllm"):
        open_run("chat", None, [*WORDS, "--quantization_bit", "4", "--quantization_method", "bnb"])
