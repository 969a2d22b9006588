"""Loading against transformers' own ``from_pretrained``, and every documented error."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ftk import ModelError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_hf.choosing import auto_class
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
)


def answering(folder, *words):
    return open_run("chat", None, ["--model_name_or_path", str(folder), *words])


def training(tmp_path, folder, **settings):
    return Run(plan_in(tmp_path, model_name_or_path=str(folder), **settings))


def base_model(run):
    return run._loader.load_model(run)


@pytest.fixture(scope="module")
def original():
    return Path(answering("ftk://random/llama?dtype=bfloat16").model_path)


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "model"))


def refused(folder, *words):
    """The one line that ``load_tokenizer`` raises: before data is tokenised and weights are read."""
    with pytest.raises(ModelError) as error:
        answering(folder, *words).tokens  # noqa: B018 (a property that loads)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(folder, name, **changes):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **changes}))


def test_the_plugin_keeps_the_contract():
    assert check_plugin("hf")


def test_a_folder_gives_what_transformers_loads(folder):
    run = answering(folder)
    ours, theirs = base_model(run), AutoModelForCausalLM.from_pretrained(folder)
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    assert run.tokenizer("Hello")["input_ids"] == run.tokenizer("Hello")["input_ids"] != []


def test_a_folder_is_loaded_without_opening_a_socket(folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    run = answering(folder, "--template", "chatml")
    assert run.tokenizer
    assert run.model(trainable=False)


def test_text_that_spells_a_control_token_can_be_kept_text():
    """ftk-data's tests hold what the flag does to rows and prompts."""
    plain = answering("ftk://tiny-chat").tokenizer
    literal = answering("ftk://tiny-chat", "--split_special_tokens", "true").tokenizer
    assert (plain.split_special_tokens, literal.split_special_tokens) == (False, True)


@pytest.fixture(scope="module")
def seeing():
    return Path(answering("ftk://random/llava").model_path)


def test_a_model_that_sees_comes_with_its_processor(seeing):
    run = answering(seeing)
    assert type(run.processor).__name__ == "LlavaProcessor"
    assert run.processor.tokenizer is run.tokenizer, "one tokenizer, so that what is set on it holds for both"
    assert run.tokens.model_type == "llava"
    ours, theirs = base_model(run), AutoModelForImageTextToText.from_pretrained(seeing)
    assert type(ours) is type(theirs)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_a_text_model_has_no_processor_and_does_not_look_for_one(folder):
    code = (
        "import sys; from ftk.opening import open_run\n"
        f"tokens = open_run('chat', None, ['--model_name_or_path', {str(folder)!r}]).tokens\n"
        "print(tokens.processor, tokens.model_type, 'transformers.models.auto.processing_auto' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "None llama False\n", done.stderr


def test_a_model_that_sees_may_come_without_a_processor(seeing, tmp_path):
    folder = Path(shutil.copytree(seeing, tmp_path / "model"))
    (folder / "processor_config.json").unlink()
    tokens = answering(folder).tokens
    assert tokens.processor is None
    assert tokens.tokenizer.convert_tokens_to_ids("<image>") == len(tokens.tokenizer) - 1


def test_the_image_processor_is_left_where_the_rest_needs_missing_packages(seeing, monkeypatch):
    """As for Qwen2-VL without torchvision, which its video processor wants."""
    from transformers import AutoProcessor

    def refuse(*_, **__):
        raise ImportError("needs torchvision")

    monkeypatch.setattr(AutoProcessor, "from_pretrained", refuse)
    tokens = answering(seeing).tokens
    assert type(tokens.processor).__name__ == "CLIPImageProcessorPil"
    assert tokens.tokenizer.pad_token


def test_the_files_decide_where_a_config_fits_two_kinds_of_model():
    """transformers loads Qwen3.5's config both as the language model alone and as the whole."""
    config = CONFIG_MAPPING["qwen3_5"]()
    config.architectures = ["Qwen3_5ForConditionalGeneration"]
    assert auto_class(config) is AutoModelForMultimodalLM
    config.architectures = ["Qwen3_5ForCausalLM"]
    assert auto_class(config) is AutoModelForCausalLM
    assert auto_class(CONFIG_MAPPING["llama"]()) is AutoModelForCausalLM
    assert auto_class(CONFIG_MAPPING["qwen2_audio"]()) is AutoModelForMultimodalLM
    assert auto_class(CONFIG_MAPPING["florence2"]()) is None, "an encoder-decoder"


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert answering("~/model").tokenizer


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),
        ({"fp16": True}, torch.float16),
        ({"infer_dtype": "float16"}, torch.bfloat16),
        ({"fp16": True, "finetuning_type": "full"}, torch.bfloat16),
        ({"pure_bf16": True, "finetuning_type": "full"}, torch.bfloat16),
    ],
)
def test_frozen_weights_have_the_type_of_the_computation(tmp_path, folder, settings, dtype):
    assert base_model(training(tmp_path, folder, **settings)).dtype == dtype


@pytest.mark.parametrize(
    ("settings", "dtype"), [({"bf16": True}, torch.float32), ({"pure_bf16": True}, torch.bfloat16), ({}, torch.float32)]
)
def test_weights_that_learn_are_not_rounded_on_the_way(tmp_path, settings, dtype):
    run = training(tmp_path, "ftk://random/llama", finetuning_type="full", **settings)
    assert base_model(run).dtype == dtype


def test_a_model_that_answers_takes_infer_dtype(folder):
    assert base_model(answering(folder, "--infer_dtype", "float32")).dtype == torch.float32


@pytest.mark.parametrize(("flash_attn", "name"), [("auto", "sdpa"), ("disabled", "eager"), ("sdpa", "sdpa")])
def test_flash_attn_chooses_the_attention(folder, flash_attn, name):
    assert base_model(answering(folder, "--flash_attn", flash_attn)).config._attn_implementation == name


def test_training_from_scratch_needs_no_weights_and_follows_the_seed(tmp_path, folder):
    (folder / "model.safetensors").unlink()
    weights = [
        base_model(training(tmp_path, folder, train_from_scratch=True, seed=seed)).lm_head.weight for seed in (1, 1, 2)
    ]
    assert weights[0].dtype == torch.float32
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_what_was_trained_from_scratch_is_loaded_afterwards(folder):
    model = base_model(answering(folder, "--train_from_scratch", "true"))
    assert torch.equal(model.lm_head.weight, AutoModelForCausalLM.from_pretrained(folder).lm_head.weight)


def test_a_missing_pad_token_is_the_end_token(folder):
    content = json.loads((folder / "tokenizer_config.json").read_text())
    del content["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    tokenizer = answering(folder).tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"


def test_a_tokenizer_without_any_end_is_one_line(folder):
    content = json.loads((folder / "tokenizer_config.json").read_text())
    del content["pad_token"], content["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    assert "its tokenizer has no end token. Set eos_token" in refused(folder)


def test_a_path_that_is_not_there_is_one_line(tmp_path):
    for name in ("./nowhere", str(tmp_path / "nowhere"), "a/b/c", "two words"):
        assert f"{name}: there is no such folder. Give a folder with config.json" in refused(name)


def test_a_file_is_one_line(folder):
    assert "is a file. Give the folder that holds config.json" in refused(folder / "config.json")


def test_a_folder_that_is_no_model_is_one_line(tmp_path):
    assert "has no config.json, so it is no model. It is empty" in refused(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "is an adapter. Give it as adapter_name_or_path" in refused(tmp_path)


def test_missing_weights_are_one_line(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is a git-lfs pointer and no weights. Run git lfs pull" in refused(folder)
    (folder / "model.safetensors").unlink()
    assert "has no weights (no model.safetensors). It holds chat_template.jinja, config.json" in refused(folder)
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-2.safetensors", "a": "model-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").write_bytes(weights)
    assert "model-2.safetensors is missing, though model.safetensors.index.json lists it" in refused(folder)
    (folder / "model.safetensors.index.json").write_text("{")
    assert "model.safetensors.index.json: is damaged" in refused(folder)


def test_weights_cut_short_are_one_line(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"the weights are damaged: .*Download them again"):
        base_model(answering(folder))


def test_weights_that_lack_a_layer_are_one_line(folder):
    edit(folder, "config.json", num_hidden_layers=3, layer_types=None)
    with pytest.raises(ModelError, match=r"weights are missing in its files, for instance model\.layers\.2\."):
        base_model(answering(folder))


def test_weights_of_another_shape_are_one_line(folder):
    edit(folder, "config.json", intermediate_size=160)
    with pytest.raises(ModelError) as error:
        base_model(answering(folder))
    assert "\n" not in str(error.value)


def test_a_missing_tokenizer_is_one_line(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert "has no tokenizer (no tokenizer.json or tokenizer.model)" in refused(folder)


def test_a_tokenizer_without_words_is_one_line(folder):
    (folder / "tokenizer.json").unlink()
    assert "tokenizer" in refused(folder)


def test_an_unknown_architecture_is_one_line(folder):
    edit(folder, "config.json", model_type="zork", architectures=["ZorkForCausalLM"])
    assert "model type zork is unknown to transformers" in refused(folder)


def test_a_model_that_writes_no_text_is_one_line(folder):
    edit(folder, "config.json", model_type="vit")
    assert "vit is no causal language model" in refused(folder)


def test_a_model_that_brings_code_is_one_line_and_its_code_does_not_run(folder):
    code = "from transformers import LlamaConfig\nopen('ran', 'w')\nclass ZorkConfig(LlamaConfig): pass\n"
    (folder / "zork.py").write_text(code)
    edit(folder, "config.json", model_type="zork", auto_map={"AutoConfig": "zork.ZorkConfig"})
    assert "brings its own Python code. Read it, then set trust_remote_code: true" in refused(folder)
    assert not Path("ran").exists()


def test_a_model_that_brings_code_learns_and_is_loaded_again_when_its_code_is_trusted(folder, ftk_run):
    (folder / "zork.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class ZorkConfig(LlamaConfig):\n    model_type = 'zork'\n"
        "class ZorkForCausalLM(LlamaForCausalLM):\n    config_class = ZorkConfig\n"
    )
    auto_map = {"AutoConfig": "zork.ZorkConfig", "AutoModelForCausalLM": "zork.ZorkForCausalLM"}
    edit(folder, "config.json", model_type="zork", auto_map=auto_map, architectures=["ZorkForCausalLM"])
    finished = ftk_run(model_name_or_path=str(folder), trust_remote_code=True, max_steps=1)
    model = open_run("chat", finished.folder, []).model(trainable=False)
    assert type(model).__name__ == "ZorkForCausalLM"
    assert type(model).__module__.startswith("transformers_modules")


def test_a_model_in_the_download_cache_is_loaded_offline(folder, monkeypatch, tmp_path):
    """The layout is the hub library's: ``refs`` hold the commit of a revision, ``snapshots`` its files."""
    home = tmp_path / "hub" / "models--acme--tiny"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "stable").write_text("c0ffee")
    shutil.copytree(folder, home / "snapshots" / "c0ffee")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words = ["--cache_dir", str(tmp_path / "hub"), "--model_revision", "stable"]
    run = open_run("chat", None, ["--model_name_or_path", "acme/tiny", *words])
    expected = AutoModelForCausalLM.from_pretrained(folder)
    for got, wanted in zip(base_model(run).parameters(), expected.parameters(), strict=True):
        assert torch.equal(got, wanted)


def test_a_device_map_places_each_part_of_a_model(tmp_path, folder):
    places = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
    placed = {"device_map": {**places, "model.layers.1": "disk"}, "offload_folder": str(tmp_path / "offload")}
    run = training(tmp_path, folder, **placed)
    model, plain = base_model(run), AutoModelForCausalLM.from_pretrained(folder)
    assert {one.device.type for one in model.model.layers[1].parameters()} == {"meta"}
    assert {one.device.type for one in model.model.layers[0].parameters()} == {"cpu"}
    ids = run.tokenizer("Hello", return_tensors="pt")["input_ids"]
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_a_damaged_config_is_one_line(folder):
    (folder / "config.json").write_text("{")
    assert str(folder) in refused(folder)


def test_a_missing_attention_package_is_one_line(folder):
    with pytest.raises(ModelError, match="flash_attn asks for a package that is not installed"):
        base_model(answering(folder, "--flash_attn", "fa3"))


def test_a_name_on_the_hub_while_offline_is_one_line(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = refused("somebody/some-model", "--cache_dir", str(tmp_path))
    assert "somebody/some-model: is no folder and not in the download cache. Give a local folder, or unset" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("RepositoryNotFoundError", "is neither a folder nor a model on the hub"),
        ("GatedRepoError", "is gated. Accept its licence"),
        ("RevisionNotFoundError", "the hub has no such model_revision"),
        ("LocalEntryNotFoundError", "the hub cannot be reached. Give a local folder"),
    ],
)
def test_what_the_hub_answers_is_one_line(monkeypatch, error, said):
    from ftk_hf.explaining import explained
    from huggingface_hub import errors

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    kind = getattr(errors, error)
    raised = kind.__new__(kind)
    Exception.__init__(raised, "first line\nsecond line")
    outer = OSError("many\nlines")
    outer.__cause__ = raised
    with pytest.raises(ModelError, match=said) as told, explained("a.yaml:1: model_name_or_path: x/y"):
        raise outer
    assert "\n" not in str(told.value)


def test_keys_that_do_nothing_any_more_are_told(tmp_path):
    plan = plan_in(tmp_path, use_fast_tokenizer=True, low_cpu_mem_usage=True)
    assert [note for note in plan.notes if "has no effect any more" in note] == [
        "the test: use_fast_tokenizer: has no effect any more: transformers 5 has no slow tokenizers",
        "the test: low_cpu_mem_usage: has no effect any more: transformers 5 always loads that way",
    ]


def test_a_plan_imports_no_torch():
    code = (
        "from ftk.opening import open_run; import sys; run = open_run('chat', None, ['--model_name_or_path', './x']);"
        "print(sorted({'torch', 'transformers', 'peft', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
