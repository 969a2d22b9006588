"""The SGLang engine, against a server that answers as SGLang's documentation says, with a model that counts.

``/generate``: documentation of SGLang, "Native APIs" and "Sampling Parameters"; its errors are those of its
``http_server.py``.
"""

import base64
import json
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ftk import ConfigError, DataError, Media, Message, ModelError, Prompt, Sampling
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk_data.asking import Asking
from ftk_peft.serving import Served
from ftk_sglang.engine import SglangEngine, certain
from ftk_sglang.loading import arguments_of
from ftk_sglang.sampling import params_of
from ftk_sglang.server import Client, Server, flags_of
from ftk_sglang.showing import Showing

GREEDY = Sampling(max_new_tokens=4, do_sample=False)
ASKED = Prompt((Message("user", "Hi"),))
WORDS = ["--model_name_or_path", "ftk://tiny-chat", "--infer_backend", "sglang"]


class StandIn(BaseHTTPRequestHandler):
    """Answers with the words w5 w6 w7 ...; ``server.trouble`` says what goes wrong."""

    def do_GET(self):
        self._say(200, {"context_length": 64} if self.path == "/get_server_info" else {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        server.asked.append(body)
        if server.trouble == "refuses":
            return self._say(400, {"error": {"message": "max_new_tokens must be at least 0, got -1."}})
        if server.trouble == "fails":
            return self._say(500, {"error": {"message": "Internal error"}})
        if server.trouble == "other":
            return self._say(200, "<html>")
        events = [self._event(body, count) for count in range(1, body["sampling_params"]["max_new_tokens"] + 1)]
        if server.trouble == "abort":
            events[-1]["meta_info"]["finish_reason"] = {"type": "abort", "message": "out of memory"}
        if not body.get("stream"):
            return self._say(200, events[-1])
        self.send_response(200)
        self.end_headers()
        for event in events[:2] if server.trouble == "dies" else events:
            try:
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.flush()
            except OSError:
                server.left += 1
                return None
            time.sleep(server.pause)
        if server.trouble != "dies":
            self.wfile.write(b"data: [DONE]\n\n")
        return None

    def _event(self, body, count):
        tokens = list(range(5, 5 + count))
        stop = next(iter(body["sampling_params"].get("stop", ())), "")
        text = " ".join(f"w{token}" for token in tokens).partition(stop or "\0")[0]
        last = count == body["sampling_params"]["max_new_tokens"]
        ids = body["input_ids"]
        said = [[-0.25 * place, token, None] for place, token in enumerate(ids)]
        told = {
            "finish_reason": {"type": "stop", "matched": tokens[-1]} if last else None,
            "prompt_tokens": len(ids), "completion_tokens": count,
            "output_token_logprobs": [[-0.5, token, None] for token in tokens],
            "output_top_logprobs": [[[-0.1, 1, None], [-0.5, token, None]] for token in tokens],
            "input_token_logprobs": said[body.get("logprob_start_len", 0) :],
        }  # fmt: skip
        return {"text": text, "output_ids": tokens, "meta_info": told}

    def _say(self, status, content):
        text = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    made.asked, made.trouble, made.pause, made.left = [], None, 0, 0
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def url(server):
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def engine(url):
    made = open_run("chat", None, [*WORDS, "--sglang_url", url]).engine()
    yield made
    made.close()


def read(stream):
    """The pieces of a stream, and what it returns."""
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as ended:
            return pieces, ended.value


def test_the_plugin_keeps_the_contract():
    assert check_plugin("sglang")


def test_a_prompt_goes_as_the_tokens_that_the_other_engine_has(engine, server):
    other = open_run("chat", None, WORDS[:2]).engine()
    prompts = [ASKED, Prompt((), text="Hi"), Prompt((), text=(5, 6))]
    replies = engine.generate(prompts, GREEDY)
    expected = [ids for ids, _ in other._shown(prompts)]
    assert sorted(one["input_ids"] for one in server.asked) == sorted(expected)
    assert [reply.num_prompt_tokens for reply in replies] == [len(ids) for ids in expected]
    assert {reply.text for reply in replies} == {"w5 w6 w7 w8"}
    assert (replies[0].finish, replies[0].num_tokens, replies[0].meta) == ("stop", 4, {"tokens": [5, 6, 7, 8]})


def test_every_field_of_sampling_reaches_the_server():
    sampling = Sampling(
        max_new_tokens=9, temperature=0.5, top_p=0.8, top_k=7, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3, stop=("END", ""), stop_ids=(9, 4), seed=3, skip_special_tokens=False, schema={},
    )  # fmt: skip
    assert params_of(sampling, [4, 2], ["###"], room=8) == {
        "max_new_tokens": 8, "temperature": 0.5, "top_p": 0.8, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.1,
        "presence_penalty": 0.2, "frequency_penalty": 0.3, "stop": ["###", "END"], "stop_token_ids": [2, 4, 9],
        "skip_special_tokens": False, "spaces_between_special_tokens": False, "sampling_seed": 3,
        "json_schema": '{"type": "object"}',
    }  # fmt: skip
    greedy = params_of(replace(sampling, do_sample=False, top_k=0), [], [], 8)
    assert (greedy["temperature"], greedy["top_k"]) == (0.0, -1)
    assert params_of(replace(sampling, top_k=0), [], [], 8)["top_k"] == -1
    with pytest.raises(DataError, match="num_beams: 2: sglang has no beam search"):
        params_of(replace(sampling, num_beams=2), [], [], 8)


def test_a_stream_joins_to_the_answer_and_returns_it(engine):
    sampling = replace(GREEDY, logprobs=2)
    pieces, reply = read(engine.stream(ASKED, sampling))
    assert pieces == ["w5", " w6", " w7", " w8"]
    assert reply == engine.generate([ASKED], sampling)[0]
    assert reply.meta["logprobs"][0] == ((5, -0.5), (1, -0.1), (5, -0.5))


def test_half_a_stop_string_is_held_back(engine):
    pieces, reply = read(engine.stream(ASKED, replace(GREEDY, stop=("w7 w8",))))
    assert "".join(pieces) == reply.text == "w5 w6 "
    assert certain("one tw", ["two", "x"]) == "one "
    assert certain("one", []) == "one"


def test_the_token_that_ends_is_shown_where_special_tokens_are(engine):
    text = engine.generate([ASKED], replace(GREEDY, skip_special_tokens=False))[0].text
    assert text == "w5 w6 w7 w8" + engine._asking.tokenizer.decode([8])


def test_a_score_is_the_mean_over_the_answer(engine):
    told = Prompt((*ASKED.messages, Message("assistant", "Hello there.")))
    scored = engine._asking.answered(told).scored
    places = [place for place, counts in enumerate(scored) if counts]
    assert engine.score([told]) == [pytest.approx(-0.25 * sum(places) / len(places))]
    with pytest.raises(DataError, match="does not end with an answer"):
        engine.score([ASKED])


@pytest.mark.parametrize(
    ("trouble", "error", "text"),
    [
        ("refuses", DataError, "^sglang: max_new_tokens must be at least 0"),
        ("fails", ModelError, r"sglang_url: http://.* answers 500: Internal error$"),
        ("other", ModelError, "says is no JSON, so it is no SGLang server"),
        ("abort", ModelError, "given up: out of memory"),
        ("dies", ModelError, "broke off in the middle of an answer"),
    ],
)
def test_trouble_of_the_server_is_one_line(engine, server, trouble, error, text):
    server.trouble = trouble
    if trouble != "other":
        with pytest.raises(error, match=text):
            list(engine.stream(ASKED, GREEDY))
    if trouble != "dies":
        with pytest.raises(error, match=text):
            engine.generate([ASKED] * 3, GREEDY)
    server.trouble = None
    assert engine.generate([ASKED], GREEDY)


def test_a_server_that_has_gone_is_one_line(url, engine, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(ModelError, match=r"does not answer: .*refused"):
        engine.generate([ASKED], GREEDY)


def test_closing_a_stream_ends_the_servers_work(engine, server):
    server.pause = 0.01
    stream = engine.stream(ASKED, replace(GREEDY, max_new_tokens=50))
    next(stream)
    stream.close()
    for _ in range(100):
        if server.left:
            break
        time.sleep(0.01)
    assert server.left == 1


def test_media_stand_in_the_body(url, server, tmp_path):
    run = open_run("chat", None, ["--model_name_or_path", "ftk://random/llava", *WORDS[2:]])
    asking = Asking.of(run, (2,), 512)
    engine = SglangEngine(Client(url, "x"), None, asking, Served("base"), {}, Showing(run))
    path = Path(__file__).parents[2] / "configs" / "data" / "shapes.png"
    (tmp_path / "sound.wav").write_bytes(b"RIFF")
    prompt = Prompt((Message("user", (Media("image", str(path)),)),))
    reply = engine.generate([prompt], GREEDY)[0]
    (body,) = server.asked
    assert base64.b64decode(body["image_data"][0].removeprefix("data:image/png;base64,")) == path.read_bytes()
    (image,) = run.tokenizer.convert_tokens_to_ids(["<image>"])
    assert body["input_ids"].count(image) == 1
    assert reply.num_prompt_tokens > len(body["input_ids"])
    made = Showing(run).data([Media("audio", str(tmp_path / "sound.wav")), Media("video", b"film")])
    assert made["audio_data"][0].startswith("data:audio/")
    assert made["video_data"] == ["data:video/mp4;base64,ZmlsbQ=="]
    with pytest.raises(DataError, match="not its frames"):
        Showing(run).data([Media("video", ("a.png", "b.png"))])


def test_adapters_answer_by_their_names(url, server):
    asking = Asking.of(open_run("chat", None, WORDS), (2,), 64)
    names = {None: "ftk-own", "french": "french"}
    engine = SglangEngine(Client(url, "x"), None, asking, Served("base", "mine", {"french": "fr"}), names)
    engine.generate([ASKED], GREEDY)
    engine.generate([ASKED], replace(GREEDY, adapter="french"))
    assert [one["lora_path"] for one in server.asked] == ["ftk-own", "french"]
    with pytest.raises(DataError, match=r"adapter dutch: is not there\. There are french"):
        engine.generate([ASKED], replace(GREEDY, adapter="dutch"))


def test_the_keys_reach_the_server_with_llamafactorys_defaults():
    run = open_run("chat", None, [*WORDS, "--sglang_config", '{"schedule_policy": "lpm"}'])
    made = arguments_of(run, Served(run.model_path, "mine", {"french": "fr"}, limit=2048))
    assert (made["context_length"], made["mem_fraction_static"], made["tp_size"]) == (2048, 0.7, 1)
    assert (made["dtype"], made["lora_backend"], made["schedule_policy"]) == ("float32", "triton", "lpm")
    assert made["lora_paths"] == ["french=fr", "ftk-own=mine"]
    words = flags_of(
        {"tp_size": 2, "lora_paths": ["a=b", "c=d"], "quiet": True, "no": None, "off": False, "m": {"a": 1}}
    )
    assert words == ["--tp-size", "2", "--lora-paths", "a=b", "c=d", "--quiet", "--m", '{"a": 1}']


@pytest.mark.parametrize("url", ["127.0.0.1:30000", "ftp://x", "http://", "http://x:port"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match=r"Write http://127\.0\.0\.1:30000"):
        Client(url, "sglang_url")


def test_an_address_without_a_server_is_an_error():
    with pytest.raises(ConfigError, match=r"no SGLang server is ready there"):
        open_run("chat", None, [*WORDS, "--sglang_url", "http://127.0.0.1:9"]).engine()


STARTS = """
import sys, http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
host, port = sys.argv[sys.argv.index("--host") + 1], int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer((host, port), H).serve_forever()
"""


def test_a_server_of_our_own_is_on_loopback_and_ends_with_us(tmp_path):
    (tmp_path / "starts.py").write_text(STARTS)
    server = Server({"model_path": "x"}, "here", command=(sys.executable, str(tmp_path / "starts.py")))
    assert server.client.url.startswith("http://127.0.0.1:")
    assert server.client.ready()
    server.close()
    server.close()
    assert not server.client.ready()
    assert server._process.returncode is not None


def test_a_server_that_ends_before_it_is_ready_says_why(tmp_path):
    (tmp_path / "ends.py").write_text("print('no GPU was found'); raise SystemExit(3)")
    with pytest.raises(ModelError, match="here: the server ended with 3: no GPU was found"):
        Server({}, "here", command=(sys.executable, str(tmp_path / "ends.py")))
    with pytest.raises(ModelError, match="cannot be started"):
        Server({}, "here", command=(str(tmp_path / "nothing"),))
