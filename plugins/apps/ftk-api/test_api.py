"""The official ``openai`` client against the server: on the embedded model, and on an engine that says what it is told.

What the model says is held against the engine asked directly. The bodies are read by the client's own types.
"""

import base64
import json
from array import array

import openai
import pytest
from ftk import DataError, Message, Prompt, Sampling
from ftk.testing import check_plugin
from jsonschema import Draft202012Validator

HI = [{"role": "user", "content": "Hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
PIXEL = base64.b64encode(b"\x89PNG pixels").decode()
TEXTS = {
    "call": f"Let me look.\n{CALL}",
    "two": f"{CALL}\n{OTHER}",
    "think": "<think>\nHm, hm.\n</think>\n\nYes.",
    "{json}": '{"name": "clock", "arguments": {}}',
    "cut": '{"name": "clock", "argu',
}


def client_of(server, key="unused"):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def client(served, tiny_engine):
    with served(tiny_engine) as server:
        yield client_of(server)


@pytest.fixture(scope="module")
def puppet(served, scripted, calling):
    """A client, and what its server's engine was asked."""
    with served(scripted(TEXTS), run=calling) as server:
        yield client_of(server), server.engine.asked


def ask(client, content="Hi", **more):
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
    return client.chat.completions.create(model="tiny-chat", messages=messages, **more)


def said(chunks, index=0):
    """The text of a stream's choice, its reasoning, its calls and its finish."""
    text = thought = ""
    calls, finish = [], None
    for chunk in chunks:
        for choice in chunk.choices:
            if choice.index == index:
                text += choice.delta.content or ""
                thought += getattr(choice.delta, "reasoning_content", None) or ""
                calls += choice.delta.tool_calls or []
                finish = choice.finish_reason or finish
    return text, thought, calls, finish


def test_the_plugin_keeps_the_contract():
    assert check_plugin("api")


# Models


def test_the_model_and_its_adapters_are_listed(puppet):
    client, _ = puppet
    assert [one.id for one in client.models.list()] == ["tiny-chat", "poet"]
    assert client.models.retrieve("poet").owned_by == "ftk"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


def test_an_adapter_answers_under_its_name_and_a_stranger_is_not_found(puppet):
    client, asked = puppet
    assert client.chat.completions.create(model="poet", messages=HI).model == "poet"
    assert asked[-1][1].adapter == "poet"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=HI)


# Chat


def test_an_answer_is_what_the_engine_says(client, tiny_engine):
    answer = ask(client, max_tokens=20)
    reply = tiny_engine.generate([Prompt((Message("user", "Hi"),))], Sampling(max_new_tokens=20, do_sample=False))[0]
    assert answer.choices[0].message.content == reply.text
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (reply.num_prompt_tokens, reply.num_tokens)
    assert ask(client, max_completion_tokens=2).choices[0].finish_reason == "length"


def test_a_stream_says_the_same_and_ends_with_its_usage(client):
    whole = ask(client, "Tell me a story.", max_tokens=20)
    chunks = list(ask(client, "Tell me a story.", max_tokens=20, stream=True, stream_options={"include_usage": True}))
    text, _, _, finish = said(chunks)
    assert (text, finish) == (whole.choices[0].message.content, whole.choices[0].finish_reason)
    assert len(chunks) > 5
    assert not chunks[-1].choices
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1
    assert not any(chunk.usage for chunk in ask(client, stream=True, max_tokens=2))


def test_several_answers_differ_and_come_again_with_their_seed(client):
    sampling = {"n": 3, "seed": 7, "temperature": 1.5, "top_p": 1, "max_tokens": 8}
    texts = [choice.message.content for choice in ask(client, **sampling).choices]
    assert len(set(texts)) == 3
    assert [choice.message.content for choice in ask(client, **sampling).choices] == texts
    chunks = list(ask(client, stream=True, **sampling))
    assert [said(chunks, index)[0] for index in range(3)] == texts
    assert [choice.message.content for choice in ask(client, **sampling | {"seed": 8}).choices] != texts


def test_a_stop_ends_an_answer_and_is_left_out(client):
    whole = ask(client).choices[0].message.content
    word = whole.split()[2]
    for stop in (word, ["never said", word]):
        choice = ask(client, stop=stop).choices[0]
        assert (choice.message.content, choice.finish_reason) == (whole[: whole.index(word)], "stop")
        assert said(ask(client, stop=stop, stream=True))[0] == whole[: whole.index(word)]


def test_log_probabilities_are_those_of_the_tokens_said(client):
    choice = ask(client, logprobs=True, top_logprobs=3, max_tokens=4).choices[0]
    told = choice.logprobs.content
    assert "".join(bytes(one.bytes).decode() for one in told) == choice.message.content
    assert all(len(one.top_logprobs) == 3 and one.top_logprobs[0].logprob >= one.logprob for one in told)
    assert all(one.token == one.top_logprobs[0].token for one in told)  # greedy
    assert ask(client, max_tokens=2).choices[0].logprobs is None
    streamed = list(ask(client, logprobs=True, max_tokens=4, stream=True))
    found = [
        one.token
        for chunk in streamed
        for choice in chunk.choices
        if choice.logprobs
        for one in choice.logprobs.content
    ]
    assert found == [one.token for one in told]


def test_penalties_and_sampling_reach_the_engine(puppet):
    client, asked = puppet
    ask(
        client,
        temperature=0.5,
        top_p=0.5,
        presence_penalty=1,
        frequency_penalty=-1,
        extra_body={"top_k": 5, "min_p": 0.1},
    )
    sampling = asked[-1][1]
    assert (sampling.do_sample, sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (
        True,
        0.5,
        0.5,
        5,
        0.1,
    )
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    ask(client, temperature=0)
    assert not asked[-1][1].do_sample


def test_reasoning_is_told_apart_streamed_or_not(puppet):
    client, _ = puppet
    message = ask(client, "think").choices[0].message
    assert (message.reasoning_content, message.content) == ("Hm, hm.", "Yes.")
    assert said(ask(client, "think", stream=True))[:2] == ("Yes.", "Hm, hm.")


# Tools


def test_a_call_is_read_streamed_or_not(puppet):
    client, asked = puppet
    choice = ask(client, "call", tools=[WEATHER]).choices[0]
    assert asked[-1][0].tools[0]["function"]["name"] == "weather"
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look.")
    call = choice.message.tool_calls[0]
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "weather",
        {"city": "Paris"},
    )
    text, _, calls, finish = said(ask(client, "call", tools=[WEATHER], stream=True))
    assert (text, finish, len(calls)) == ("Let me look.", "tool_calls", 1)
    assert (calls[0].index, calls[0].function.name) == (0, "weather")
    assert json.loads(calls[0].function.arguments) == {"city": "Paris"}


def test_parallel_calls_are_all_told_unless_one_is_wanted(puppet):
    client, _ = puppet
    tools = [WEATHER, CLOCK]
    calls = ask(client, "two", tools=tools).choices[0].message.tool_calls
    assert [one.function.name for one in calls] == ["weather", "clock"]
    assert len({one.id for one in calls}) == 2
    streamed = said(ask(client, "two", tools=tools, stream=True))[2]
    assert [(one.index, one.function.name) for one in streamed] == [(0, "weather"), (1, "clock")]
    for stream in (False, True):
        answer = ask(client, "two", tools=tools, parallel_tool_calls=False, stream=stream)
        calls = said(answer)[2] if stream else answer.choices[0].message.tool_calls
        assert [one.function.name for one in calls] == ["weather"]


def test_results_of_parallel_calls_reach_the_engine_in_order(puppet):
    client, asked = puppet
    calls = [
        {"id": name, "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
        for name, city in (("a", "Rome"), ("b", "Oslo"))
    ]
    results = [{"role": "tool", "tool_call_id": name, "content": text} for name, text in (("a", "hot"), ("b", "cold"))]
    messages = [*HI, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    assert ask(client, messages, tools=[WEATHER]).choices[0].message.content == "You said cold."
    prompt = asked[-1][0]
    assert [one.role for one in prompt.messages] == ["user", "assistant", "tool", "tool"]
    assert [dict(one.arguments) for one in prompt.messages[1].tool_calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert [one.text for one in prompt.messages[2:]] == ["hot", "cold"]


@pytest.mark.parametrize(
    ("message", "right"),
    [
        (HI[0], True),
        ({"role": "tool", "tool_call_id": "a", "content": "hot"}, True),
        ({"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, True),
        ({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, True),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}, True),
        ({"role": "referee", "content": "Hi"}, False),
        ({"role": "user"}, False),
        ({"role": "user", "content": [{"type": "image_url"}]}, False),
    ],
)
def test_messages_are_described_as_they_are_read(puppet, message, right):
    client, _ = puppet
    asked = client.get("/../openapi.json", cast_to=object)["components"]["schemas"]["ChatRequest"]
    assert Draft202012Validator(asked).is_valid({"messages": [message]}) is right


def test_tool_choice_none_shows_no_tools(puppet):
    client, asked = puppet
    message = ask(client, "call", tools=[WEATHER], tool_choice="none").choices[0].message
    assert not message.tool_calls
    assert asked[-1][0].tools == ()


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "clock"}}])
def test_a_call_that_is_insisted_on_is_held_to_a_schema(puppet, choice):
    client, asked = puppet
    for stream in (False, True):
        answer = ask(client, "{json}", tools=[WEATHER, CLOCK], tool_choice=choice, stream=stream)
        calls = said(answer)[2] if stream else answer.choices[0].message.tool_calls
        assert (calls[0].function.name, calls[0].function.arguments) == ("clock", "{}")
    schema = asked[-1][1].schema
    names = [one["properties"]["name"]["const"] for one in schema.get("anyOf", [schema])]
    assert names == (["weather", "clock"] if choice == "required" else ["clock"])
    cut = ask(client, "cut", tools=[CLOCK], tool_choice=choice).choices[0]
    assert (cut.message.tool_calls, cut.message.content) == (None, TEXTS["cut"])


def test_a_choice_of_a_tool_that_is_not_there_is_refused(puppet):
    client, _ = puppet
    for more in (
        {"tool_choice": "required"},
        {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "x"}}},
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, **more)
        assert caught.value.param == "tool_choice"


def test_what_an_engine_cannot_do_is_refused_before_the_first_event(served, scripted):
    class Plain(scripted):
        def stream(self, prompt, sampling):
            if sampling.schema is not None:
                raise DataError("schema: this engine follows none")
            return (yield from super().stream(prompt, sampling))

    with served(Plain()) as server:
        for stream in (False, True):
            for more in ({"response_format": {"type": "json_object"}}, {"tools": [CLOCK], "tool_choice": "required"}):
                with pytest.raises(openai.BadRequestError, match="follows none"):
                    ask(client_of(server), stream=stream, **more)


# Forms


def test_the_schema_of_a_response_reaches_the_engine(puppet):
    client, asked = puppet
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    ask(client, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert asked[-1][1].schema == schema
    ask(client, response_format={"type": "json_object"})
    assert asked[-1][1].schema == {}
    ask(client, response_format={"type": "text"})
    assert asked[-1][1].schema is None
    with pytest.raises(openai.BadRequestError):
        ask(client, response_format={"type": "json_schema"})


def test_the_model_answers_in_the_schema_and_calls_what_it_has_to(client):
    pytest.importorskip(
        "llguidance", reason="answers in a schema need llguidance, the extra `backend` of ftk-hf-engine"
    )
    schema = {
        "type": "object", "required": ["age", "kind"], "additionalProperties": False,
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["cat", "dog"]}},
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": schema}}
    for seed in range(3):
        choice = ask(client, response_format=form, seed=seed, temperature=2, top_p=1, max_tokens=60).choices[0]
        found = json.loads(choice.message.content)
        assert choice.finish_reason == "stop"
        assert set(found) == {"age", "kind"}
        assert 0 <= found["age"] <= 99
        assert found["kind"] in ("cat", "dog")
    adopt = {"type": "function", "function": {"name": "adopt", "parameters": schema}}
    call = ask(client, tools=[adopt], tool_choice="required", max_tokens=60).choices[0].message.tool_calls[0]
    assert call.function.name == "adopt"
    assert json.loads(call.function.arguments)["kind"] in ("cat", "dog")


# Media


def test_an_image_in_a_data_uri_is_shown(puppet):
    client, asked = puppet
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    ask(client, [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}])
    part = asked[-1][0].messages[0].content[1]
    assert (part.kind, part.source) == ("image", b"\x89PNG pixels")


# Completions


def test_a_text_and_its_tokens_are_gone_on_with_alike(client, tiny):
    text = "What is the capital"
    ids = tiny.tokenizer(text)["input_ids"]
    whole = client.completions.create(model="tiny-chat", prompt=text, max_tokens=6)
    assert (
        client.completions.create(model="tiny-chat", prompt=ids, max_tokens=6).choices[0].text == whole.choices[0].text
    )
    echoed = client.completions.create(model="tiny-chat", prompt=text, max_tokens=6, echo=True)
    assert echoed.choices[0].text == text + whole.choices[0].text
    chunks = list(client.completions.create(model="tiny-chat", prompt=ids, max_tokens=6, echo=True, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == text + whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_each_of_several_prompts_gets_its_answers(client, tiny):
    prompts = ["What is", "Tell me a long"]
    found = client.completions.create(model="tiny-chat", prompt=prompts, n=2, max_tokens=4, temperature=0)
    alone = [client.completions.create(model="tiny-chat", prompt=one, max_tokens=4) for one in prompts]
    assert [one.text for one in found.choices] == [one.choices[0].text for one in alone for _ in range(2)]
    assert found.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)
    lists = [tiny.tokenizer(one)["input_ids"] for one in prompts]
    again = client.completions.create(model="tiny-chat", prompt=lists, max_tokens=4)
    assert [one.text for one in again.choices] == [one.choices[0].text for one in alone]
    chunks = client.completions.create(
        model="tiny-chat", prompt=prompts, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    assert list(chunks)[-1].usage.prompt_tokens == found.usage.prompt_tokens


def test_log_probabilities_of_a_completion_have_their_places(client):
    choice = client.completions.create(
        model="tiny-chat", prompt="<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", max_tokens=4, logprobs=2
    ).choices[0]
    told = choice.logprobs
    assert "".join(told.tokens) == choice.text
    assert told.text_offset == [len("".join(told.tokens[:number])) for number in range(4)]
    assert all(
        len(best) == 2 and best[token] == value
        for best, token, value in zip(told.top_logprobs, told.tokens, told.token_logprobs, strict=True)
    )


# Numbers


def test_embeddings_come_from_an_engine_that_makes_them(client, puppet):
    puppet = puppet[0]
    found = puppet.embeddings.create(model="tiny-chat", input=["a", "abc"])  # the client asks for base64 and reads it
    assert [one.embedding for one in found.data] == [[1, 1], [1, 3]]
    assert puppet.embeddings.create(model="tiny-chat", input="ab", encoding_format="float").data[0].embedding == [1, 2]
    raw = puppet.post("/embeddings", body={"input": "ab", "encoding_format": "base64"}, cast_to=object)
    assert list(array("f", base64.b64decode(raw["data"][0]["embedding"]))) == [1, 2]
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model="tiny-chat", input="a")
    assert caught.value.status_code == 501


def test_scores_are_the_engine_s(client, puppet, tiny_engine):
    said = [*HI, {"role": "assistant", "content": "Hello!"}]
    found = client.post("/score", body={"messages": [said]}, cast_to=object)
    prompt = Prompt((Message("user", "Hi"), Message("assistant", "Hello!")))
    assert found["data"][0]["score"] == pytest.approx(tiny_engine.score([prompt])[0])
    rewards = puppet[0].post("/score/evaluation", body={"messages": ["abc", "a"]}, cast_to=object)
    assert rewards["scores"] == [3.0, 1.0]
    with pytest.raises(openai.APIStatusError) as caught:  # no value head
        client.post("/score/evaluation", body={"messages": ["abc"]}, cast_to=object)
    assert caught.value.status_code == 501
