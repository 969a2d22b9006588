"""Random models against a fresh ``from_config`` of transformers under the same seed."""

import json
import subprocess
import sys
import zipfile

import ftk_tiny.random_models as random_models
import pytest
import torch
from ftk import ModelError
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk_tiny.locating import TINY_CHAT, cache
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM


def open_model(name):
    return open_run("chat", None, ["--model_name_or_path", name])


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FTK_CACHE", str(tmp_path))
    return tmp_path


def test_the_plugin_keeps_the_contract():
    assert check_plugin("tiny")


def test_tiny_chat_is_in_the_package_and_loads():
    run = open_model("ftk://tiny-chat")
    assert run.model_path == str(TINY_CHAT)
    assert run.tokenizer.chat_template
    assert run.model(trainable=False).num_parameters() > 1_000_000


def test_a_random_model_is_what_from_config_makes_under_its_seed(own_cache):
    run = open_model("ftk://random/qwen2?seed=5")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        fresh = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(run.model_path)).state_dict()
    ours = run.model(trainable=False).state_dict()
    assert fresh.keys() == ours.keys()
    assert all(torch.equal(fresh[name], ours[name]) for name in fresh)
    assert run.model_path.startswith(str(own_cache))


def test_seed_and_fields_are_part_of_the_address(own_cache):
    names = ["ftk://random/llama", "ftk://random/llama?seed=1", "ftk://random/llama?num_hidden_layers=3&hidden_size=32"]
    folders = [open_model(name).model_path for name in names]
    assert len(set(folders)) == 3
    config = AutoConfig.from_pretrained(folders[2])
    vocabulary = json.loads((TINY_CHAT / "config.json").read_text())["vocab_size"]
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (3, 32, vocabulary)
    assert open_model("ftk://random/llama?hidden_size=32&num_hidden_layers=3").model_path == folders[2]
    assert open_model("ftk://random/llama?seed=0").model_path == folders[0]


def test_a_random_model_is_made_once_and_no_half_of_it_is_seen(own_cache, monkeypatch):
    first = open_model("ftk://random/llama").model_path
    made = {path.name: path.stat().st_mtime_ns for path in (own_cache / "random").rglob("*")}
    monkeypatch.setattr(random_models, "_make", None)
    assert open_model("ftk://random/llama").model_path == first
    assert {path.name: path.stat().st_mtime_ns for path in (own_cache / "random").rglob("*")} == made

    def fail(folder, *_):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(random_models, "_make", fail)
    with pytest.raises(KeyboardInterrupt):
        open_model("ftk://random/gpt2").model_path  # noqa: B018 (a property that makes the model)
    assert [path.name for path in (own_cache / "random").iterdir()] == [first.rpartition("/")[2]]


def test_two_processes_may_make_the_same_model(own_cache):
    code = "from ftk.opening import open_run; print(open_run('chat', None, ['--model_name_or_path', 'ftk://random/gpt2']).model_path)"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(folders) == 1
    assert len(list((own_cache / "random").iterdir())) == 1


@pytest.mark.parametrize(
    "family",
    [
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma2",
        "gpt2",
        "mixtral",
        "qwen3_moe",
        "deepseek_v3",
        "mamba",
        "qwen3_next",
    ],
)
def test_families_learn_and_answer(family, own_cache):
    model = open_model(f"ftk://random/{family}").model(trainable=False)
    ids = torch.randint(3, 2048, (2, 12))
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "experts" not in name)
    assert model.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False).shape == (2, 15)
    assert model.num_parameters() < 1_000_000


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_families_that_see_learn_and_answer(family, own_cache):
    run = open_model(f"ftk://random/{family}")
    model, processor = run.model(trainable=False), run.processor
    picture = Image.new("RGB", (50, 30), (200, 100, 0))
    inputs = processor(images=picture, text="<image>What is it?", return_tensors="pt")
    loss = model(**inputs, labels=inputs["input_ids"], use_cache=False).loss
    loss.backward()
    gradients = {name.split(".")[1] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradients >= {"language_model", "multi_modal_projector", "vision_tower"}
    answer = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3
    assert model.num_parameters() < 1_000_000


def test_a_model_that_sees_has_a_token_and_a_template_for_images(own_cache):
    run = open_model("ftk://random/llava")
    assert run.tokenizer.tokenize("a<image><image>b") == ["a", "<image>", "<image>", "b"]
    content = [{"type": "image"}, {"type": "text", "text": "Who?"}]
    text = run.tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    assert text == "<|im_start|>user\n<image>Who?<|im_end|>\n"
    assert run.processor.chat_template == run.tokenizer.chat_template


def test_fields_of_the_tower_and_of_the_language_model_are_part_of_the_address(own_cache):
    address = "ftk://random/llava?vision_config.image_size=48&hidden_size=32&vision_feature_select_strategy=full"
    run = open_model(address)
    config = AutoConfig.from_pretrained(run.model_path)
    assert (config.vision_config.image_size, config.text_config.hidden_size) == (48, 32)
    assert config.vision_feature_select_strategy == run.processor.vision_feature_select_strategy == "full"
    assert run.processor.image_processor.crop_size["height"] == 48


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ftk://tinychat", "there is no such model. Did you mean ftk://tiny-chat?"),
        ("ftk://tiny-chat/more", "there is no such model."),
        ("ftk://random", "there is no such model."),
        ("ftk://random/qwen22", "has no causal language model qwen22. Did you mean qwen2?"),
        ("ftk://random/llama?hiden_size=3", "hiden_size: is no field of LlamaConfig. Did you mean hidden_size?"),
        ("ftk://random/lava", "has no causal language model lava. Did you mean llava?"),
        ("ftk://random/llava?vision_config.imagesize=3", "vision_config.imagesize: is no field of CLIPVisionConfig."),
        ("ftk://random/llava?hiden_size=3", "hiden_size: is no field of LlamaConfig. Did you mean hidden_size?"),
        ("ftk://random/llama?hidden_size=", "hidden_size: has no value. Write hidden_size=..."),
        ("ftk://random/llama?hidden_size=big", "llama does not take these values"),
        ("ftk://random/llama?seed=x", "seed=x: is no whole number"),
        ("ftk://random/llama?hidden_size=65536", "parameters; at most 20,000,000 are made"),
        ("ftk://random/gpt2?n_head=5", "gpt2 cannot be made this small"),
    ],
)
def test_a_wrong_address_is_one_line(name, said, own_cache):
    with pytest.raises(ModelError) as error:
        open_model(name).model_path  # noqa: B018 (a property that makes the model)
    assert said in str(error.value)
    assert str(error.value).startswith(f"command line: --model_name_or_path: {name}: ")
    assert "\n" not in str(error.value)
    assert not list((own_cache / "random").glob("*")) if (own_cache / "random").exists() else True


def test_the_cache_is_under_home_unless_ftk_cache_says_where(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FTK_CACHE", raising=False)
    assert cache() == tmp_path / ".cache" / "ftk" / "random"


def test_the_wheel_holds_the_model(tmp_path):
    build = pytest.importorskip("flit_core.buildapi")
    folder = TINY_CHAT.parent.parent
    if not (folder / "pyproject.toml").exists():
        pytest.skip("installed without its source")
    code = (
        f"import os; os.chdir({str(folder)!r}); import {build.__name__} as b; print(b.build_wheel({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = zipfile.ZipFile(tmp_path / done.stdout.split()[-1]).namelist()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        assert f"ftk_tiny/tiny_chat/{name}" in names
    assert not [name for name in names if "making" in name]
    assert "ftk_tiny/seeing_chat.jinja" in names
    assert json.loads((TINY_CHAT / "config.json").read_text())["model_type"]
