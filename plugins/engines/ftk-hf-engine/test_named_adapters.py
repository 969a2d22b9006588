"""Adapters that a request names, against each merged into a model of its own by peft."""

import pytest
import torch
from ftk import DataError, Message, ModelError, Prompt, Sampling
from ftk.opening import open_run
from peft import LoraConfig, PeftModel, get_peft_model

BASE = ["--model_name_or_path", "ftk://random/llama", "--template", "chatml"]
GREEDY = {"max_new_tokens": 12, "do_sample": False}
ASKED = [Prompt((Message("user", text),)) for text in ("Hi", "What is the capital of France?")]


def base_model():
    return open_run("chat", None, BASE).model(trainable=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for seed, name in enumerate(("french", "german"), start=1):
        torch.manual_seed(seed)
        model = get_peft_model(base_model(), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.5)
        made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(made[name])
    return made


def merged_replies(folder):
    run = open_run("chat", None, BASE)
    model = run.model(trainable=False)
    if folder is not None:
        model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    return [reply.text for reply in run.engine(model).generate(ASKED, Sampling(**GREEDY))]


@pytest.mark.parametrize("joins", [True, False])
def test_each_request_is_answered_by_the_adapter_that_it_names(folders, joins):
    named = ", ".join(f"{name}: {folder}" for name, folder in folders.items())
    engine = open_run("chat", None, [*BASE, "--lora_modules", f"{{{named}}}"]).engine()
    if not joins:
        engine._batcher = None
    assert engine.adapters == ("french", "german")
    streams = {name: engine.stream(ASKED[1], Sampling(**GREEDY, adapter=name)) for name in ("french", None, "german")}
    said = dict.fromkeys(streams, "")
    if joins:  # all three at once
        said = {name: next(stream) for name, stream in streams.items()}
    for name, stream in streams.items():
        said[name] += "".join(stream)
    for name, text in said.items():
        expected = merged_replies(folders.get(name))
        assert text == expected[1]
        assert [one.text for one in engine.generate(ASKED, Sampling(**GREEDY, adapter=name))] == expected
    assert len(set(said.values())) == 3
    with pytest.raises(DataError, match=r"adapter dutch: is not there\. There are french, german"):
        engine.generate(ASKED, Sampling(adapter="dutch"))


def test_an_engine_without_named_adapters_says_so():
    engine = open_run("chat", None, BASE).engine()
    with pytest.raises(DataError, match=r"adapter french: is not there\. lora_modules names"):
        engine.generate(ASKED, Sampling(adapter="french"))


def test_a_folder_that_holds_none_is_an_error(tmp_path):
    words = [*BASE, "--lora_modules", f"{{french: {tmp_path}}}"]
    with pytest.raises(ModelError, match=r"lora_modules: .* has no adapter_config.json"):
        open_run("chat", None, words).engine()
