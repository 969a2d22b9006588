"""What servers are given: a base and plain adapters, or a merged model whose answers are those of peft's own merge."""

import json

import pytest
import torch
from ftk import ConfigError, Message, Prompt, Sampling
from ftk.opening import open_run
from ftk_peft.serving import changes_base, not_plain, served
from peft import LoraConfig, PeftModel, get_peft_model

BASE = ["--model_name_or_path", "ftk://random/llama", "--template", "chatml"]


def adapter(folder, **config):
    model = open_run("chat", None, BASE).model(trainable=False)
    made = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **config))
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    made.save_pretrained(folder)
    return ["--adapter_name_or_path", str(folder)]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({}, ""),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"bias": "all"}, "bias: all"),
    ],
)
def test_what_is_more_than_plain_lora_is_named(config, word):
    assert not_plain(LoraConfig(r=4, **config).to_dict()) == word


def test_a_beginning_that_changes_the_base_is_known():
    assert changes_base(LoraConfig(init_lora_weights="olora").to_dict())
    assert not changes_base(LoraConfig().to_dict())
    assert not_plain({"peft_type": "OFT"}) == "oft"
    assert not_plain(LoraConfig(use_rslora=True).to_dict(), rslora=False) == "use_rslora"


def test_one_plain_adapter_stays_beside_its_base(tmp_path):
    run = open_run("chat", None, [*BASE, *adapter(tmp_path)])
    made = served(run, "vllm")
    assert (made.model, made.own, made.rank, made.made) == (run.model_path, str(tmp_path), 4, None)
    assert (made.ends, made.limit) == ((2,), 512)


def test_several_adapters_are_merged_into_a_folder_that_goes_away(tmp_path):
    words = [*adapter(tmp_path / "a"), *adapter(tmp_path / "b")]
    both = ["--adapter_name_or_path", f"{words[1]},{words[3]}"]
    made = served(open_run("chat", None, [*BASE, *both]), "vllm")
    folder = made.made
    sampling, asked = Sampling(max_new_tokens=8, do_sample=False), [Prompt((Message("user", "Hi"),))]
    found = open_run("chat", None, ["--model_name_or_path", made.model, *BASE[2:]]).engine().generate(asked, sampling)
    run = open_run("chat", None, BASE)
    model = run.model(trainable=False)
    for path in (words[1], words[3]):
        model = PeftModel.from_pretrained(model, path).merge_and_unload()
    assert made.own is None
    assert found == run.engine(model).generate(asked, sampling)
    made.close()
    made.close()
    assert not folder.exists()


def test_a_named_adapter_that_no_server_reads_is_refused(tmp_path):
    folder = adapter(tmp_path, use_dora=True)[1]
    assert json.loads((tmp_path / "adapter_config.json").read_text())["use_dora"]
    run = open_run("chat", None, [*BASE, "--lora_modules", f"{{french: {folder}}}"])
    with pytest.raises(ConfigError, match=r"lora_modules: .*french: has use_dora, which vllm does not serve"):
        served(run, "vllm")
