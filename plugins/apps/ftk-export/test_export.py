"""An export against the model that was trained: loaded by transformers alone, or broken on purpose and refused."""

import json

import ftk_export.command as command_module
import pytest
import torch
from ftk import CheckpointError, ConfigError, Message, Prompt, Sampling
from ftk.opening import open_run
from ftk.testing import check_plugin, run_in
from ftk_export.command import export_run
from ftk_export.gate import ParityError
from ftk_export.writing import check_room, check_target
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS = [{"instruction": f"Say {word}.", "output": word} for word in ("one", "two", "three", "four")]
SETTINGS = {
    "stage": "sft", "model_name_or_path": "ftk://random/llama", "template": "chatml", "max_steps": 3,
    "learning_rate": 5e-2, "per_device_train_batch_size": 2, "use_cpu": True,
}  # fmt: skip


def trained(folder, **more):
    (folder / "rows.json").write_text(json.dumps(ROWS))
    run_in(folder, **{**SETTINGS, "dataset": str(folder / "rows.json"), **more})
    return folder / "out"


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
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


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_transformers_alone_says_the_same_words(tmp_path, lora, kind):
    source = lora if kind == "lora" else trained(tmp_path, finetuning_type="full", learning_rate=1e-2)
    target = tmp_path / "merged"
    told = export_run(exporting(source, target), target)
    assert said_by_transformers(target) == said_by_ftk(source)
    assert "3 prompts: logits" in told
    assert json.loads((target / "ftk_export.json").read_text())["verified"] == told
    assert not list(tmp_path.glob(".*partial"))


def test_several_adapters_are_merged_in_their_order(tmp_path, lora):
    second = trained(tmp_path, finetuning_type="lora", adapter_name_or_path=str(lora), create_new_adapter=True)
    target = tmp_path / "merged"
    export_run(exporting(second, target), target)
    assert said_by_transformers(target) == said_by_ftk(second)


def test_another_type_is_written_and_compared(tmp_path, lora):
    target = tmp_path / "half"
    export_run(exporting(lora, target, "--export_dtype", "bfloat16"), target)
    assert AutoModelForCausalLM.from_pretrained(target, dtype="auto").dtype == torch.bfloat16


def test_a_quantised_base_becomes_plain(tmp_path):
    pytest.importorskip("bitsandbytes", reason="ftk-bnb is not there")
    bits = {"quantization_bit": 4, "quantization_method": "bnb"}
    source = trained(tmp_path, finetuning_type="lora", **bits)
    target = tmp_path / "merged"
    export_run(exporting(source, target), target)
    config = json.loads((target / "config.json").read_text())
    assert "quantization_config" not in config
    assert said_by_transformers(target) == said_by_ftk(source)


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
