"""An export against the model that was trained: loaded by transformers alone, or broken on purpose and refused."""

import json
from pathlib import Path

import ftk_export.command as command_module
import pytest
import torch
from ftk import CheckpointError, ConfigError, FtkError, Message, Prompt, Sampling
from ftk.opening import open_run
from ftk.testing import check_plugin, run_in
from ftk_export.command import export_run, send
from ftk_export.gate import ParityError
from ftk_export.writing import check_room, check_target
from peft import LoraConfig, OFTConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer

ROWS = [{"instruction": f"Say {word}.", "output": word} for word in ("one", "two", "three", "four")]
SETTINGS = {
    "stage": "sft", "model_name_or_path": "ftk://random/llama", "template": "chatml", "max_steps": 2,
    "learning_rate": 5e-2, "per_device_train_batch_size": 2, "use_cpu": True,
}  # fmt: skip
ADAPTER = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)


def trained(folder, **more):
    (folder / "rows.json").write_text(json.dumps(ROWS))
    run_in(folder, **{**SETTINGS, "dataset": str(folder / "rows.json"), **more})
    return folder / "out"


def adapter(folder, config=ADAPTER, **words):
    """A random adapter, in the place of one that was trained: a second instead of ten. And the YAML that has it."""
    keys = {"model_name_or_path": SETTINGS["model_name_or_path"], "template": "chatml", **words}
    torch.manual_seed(len(list(folder.iterdir())))
    base = open_run("chat", None, ["--model_name_or_path", keys["model_name_or_path"]]).model(trainable=False)
    get_peft_model(base, config).save_pretrained(path := folder / f"adapter-{len(list(folder.iterdir()))}")
    return path


def described(folder, *adapters, **words):
    """A YAML of a model with adapters."""
    keys = {"model_name_or_path": SETTINGS["model_name_or_path"], "template": "chatml", **words}
    if adapters:
        keys["adapter_name_or_path"] = [str(path) for path in adapters]
    path = folder / "model.yaml"
    path.write_text(json.dumps(keys))
    return path


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """The one run that is trained here."""
    return trained(tmp_path_factory.mktemp("lora"), finetuning_type="lora", lora_rank=4)


def exporting(source, target, *words):
    return open_run("export", str(source), ["--export_dir", str(target), *map(str, words)])


def said_by_ftk(source):
    engine = open_run("chat", str(source), []).engine()
    prompt = Prompt((Message("user", "Say two."),))
    return engine.generate([prompt], Sampling(max_new_tokens=12, do_sample=False))[0].meta["tokens"]


def said_by_transformers(folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    asked = [{"role": "user", "content": "Say two."}]
    inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    return model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()


def test_the_plugin_keeps_the_contract():
    assert check_plugin("export")


def test_transformers_alone_says_the_same_words(tmp_path, lora):
    target = tmp_path / "merged"
    told = export_run(exporting(lora, target), target)
    assert said_by_transformers(target) == said_by_ftk(lora)
    assert "3 prompts: logits" in told
    assert json.loads((target / "ftk_export.json").read_text())["verified"] == told
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.needs("ftk-freeze")
def test_a_whole_model_is_exported(tmp_path):
    source = trained(tmp_path, finetuning_type="freeze", learning_rate=1e-2)
    target = tmp_path / "merged"
    export_run(exporting(source, target), target)
    assert said_by_transformers(target) == said_by_ftk(source)


def test_another_type_is_written_and_compared(tmp_path, lora):
    target = tmp_path / "half"
    export_run(exporting(lora, target, "--export_dtype", "bfloat16"), target)
    assert AutoModelForCausalLM.from_pretrained(target, dtype="auto").dtype == torch.bfloat16


OTHERS = {
    "dora": LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False, use_dora=True),
    "oft": OFTConfig(oft_block_size=16, target_modules=["q_proj"], task_type="CAUSAL_LM", init_weights=False),
}


@pytest.mark.parametrize("name", OTHERS)
def test_adapters_of_other_kinds_are_merged(tmp_path, name):
    source = described(tmp_path, adapter(tmp_path, OTHERS[name]))
    target = tmp_path / "merged"
    export_run(exporting(source, target), target)
    assert said_by_transformers(target) == said_by_ftk(source)


@pytest.mark.parametrize("bits", [None, pytest.param(4, marks=pytest.mark.needs("ftk-bnb", "bitsandbytes"))])
def test_several_adapters_are_merged_in_their_order_also_out_of_a_quantised_base(tmp_path, bits):
    keys = {}
    if bits:
        keys = {"quantization_bit": bits, "quantization_method": "bnb"}
    paths = adapter(tmp_path), adapter(tmp_path)
    target = tmp_path / "merged"
    export_run(exporting(described(tmp_path, *paths, **keys), target), target)
    assert "quantization_config" not in json.loads((target / "config.json").read_text())
    base = open_run("chat", str(described(tmp_path, **keys)), [])
    model = base.dequantized(base.model(trainable=False))
    for path in paths:  # peft alone
        model = PeftModel.from_pretrained(model, str(path)).merge_and_unload()
    ids = torch.tensor([[5, 6, 7, 8]])
    found = AutoModelForCausalLM.from_pretrained(target)
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-4)


def test_a_value_head_is_copied(tmp_path):
    path = adapter(tmp_path)
    (path / "value_head.safetensors").write_bytes(b"head")
    target = tmp_path / "merged"
    export_run(exporting(described(tmp_path, path), target, "--export_verify", "false"), target)
    assert (target / "value_head.safetensors").read_bytes() == b"head"


def test_a_model_that_sees_leaves_with_its_processor_and_is_compared_on_a_picture(tmp_path):
    target = tmp_path / "seeing"
    source = described(tmp_path, model_name_or_path="ftk://random/llava", template="llava")
    told = export_run(exporting(source, target), target)
    assert told.startswith("4 prompts (1 with a picture): logits")
    assert type(AutoProcessor.from_pretrained(target)).__name__ == "LlavaProcessor"


@pytest.mark.needs("ftk-new-tokens")
def test_new_tokens_and_their_rows_leave_with_the_model(tmp_path):
    source = described(tmp_path, add_tokens="<one>,<two>", resize_vocab=True)
    target = tmp_path / "merged"
    export_run(exporting(source, target), target)
    assert AutoTokenizer.from_pretrained(target)("<two>").input_ids[-1] == 2561
    assert AutoModelForCausalLM.from_pretrained(target).get_input_embeddings().num_embeddings > 2561


class Hub:
    """In the place of huggingface_hub.HfApi."""

    def __init__(self, token):
        self.token = token

    def create_repo(self, name, exist_ok, private):
        Hub.seen = [self.token, name, exist_ok, private]

    def upload_folder(self, repo_id, folder_path, commit_message):
        if repo_id == "me/closed":
            raise ValueError(f"401 with {self.token}")
        Hub.seen.append(folder_path)


def test_the_hub_gets_it_when_asked_and_no_message_has_the_token(tmp_path, lora, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    run = exporting(lora, tmp_path, "--hf_hub_token", "hf_secret")
    send(tmp_path, "me/model", run)
    assert Hub.seen == ["hf_secret", "me/model", True, True, str(tmp_path)]
    with pytest.raises(CheckpointError, match=r"cannot be sent, and is complete in .*401 with \*\*\*") as caught:
        send(tmp_path, "me/closed", run)
    assert "hf_secret" not in str(caught.value)


def test_bits_that_the_format_does_not_have_are_refused(tmp_path, lora):
    words = ["--export_quantization_bit", "4", "--export_format"]
    with pytest.raises(ConfigError, match=r"4: the format safetensors keeps all bits\. Choose export_format"):
        check_target(exporting(lora, tmp_path / "new", *words, "safetensors"))


EXAMPLES = Path(__file__).parents[4] / "shared" / "golden" / "llamafactory_examples"


@pytest.mark.skipif(not EXAMPLES.exists(), reason="LLaMA-Factory's examples are not there")
def test_the_examples_of_llama_factory_are_understood():
    planned, left = 0, []
    for path in sorted(EXAMPLES.glob("**/*.yaml")):
        if "export_dir" not in path.read_text() or "v1" in path.parts:  # its second version has other keys
            continue
        try:
            open_run("export", str(path), [])
            planned += 1
        except FtkError as error:
            left.append(f"{path.name}: {error}")
    assert planned
    assert all("is not installed" in one or "pip install" in one for one in left), left


def break_weights(model, folder, run):
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1.05)


def break_template(model, folder, run):
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "model"))


def break_ends(model, folder, run):
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": 1}))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (break_weights, None, "the logits of the export are"),
        (None, break_template, "the chat template of the export writes"),
        (None, break_ends, "the export does not end answers at"),
    ],
)
def test_an_export_that_is_not_the_same_is_not_put_in_its_place(tmp_path, lora, monkeypatch, before, after, said):
    target, run = tmp_path / "broken", exporting(lora, tmp_path / "broken")
    form = run.plan.one("export_format")
    write = form.load()

    def broken(model, folder, run):
        if before:
            before(model, folder, run)
        write(model, folder, run)
        if after:
            after(model, folder, run)

    monkeypatch.setattr(type(form), "load", lambda self, field="target": broken)
    with pytest.raises(ParityError, match=said):
        export_run(run, target)
    assert not target.exists()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_refused_before_anything_is_loaded(tmp_path, lora):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="holds something"):
        check_target(exporting(lora, tmp_path / "full"))
    with pytest.raises(ConfigError, match=r"\.bin files are pickles"):
        check_target(exporting(lora, tmp_path / "new", "--export_legacy_format", "true"))
    with pytest.raises(ConfigError, match="export_dir: not set"):
        check_target(open_run("export", str(lora), []))


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, lora, monkeypatch):
    run = exporting(lora, tmp_path / "new")
    monkeypatch.setattr(command_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(CheckpointError, match=r"GB are free\. Make room or choose another"):
        check_room(run.model(trainable=False), tmp_path / "new", run.plan.one("export_format"))
