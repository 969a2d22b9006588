"""A quantised export opened by transformers alone, against the plain model rounded by transformers while it loads."""

import json

import pytest
import torch
from ftk import ConfigError
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk_export.command import export_run
from ftk_export.writing import check_target
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])
FEW = {
    4: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                          bnb_4bit_compute_dtype=torch.float32),
    8: BitsAndBytesConfig(load_in_8bit=True),
}  # fmt: skip


def exporting(folder, *words, **keys):
    keys = {"model_name_or_path": "ftk://random/llama", "template": "chatml", **keys}
    (folder / "model.yaml").write_text(json.dumps(keys))
    return open_run("export", str(folder / "model.yaml"), ["--export_dir", str(folder / "out"), *words])


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS_BT).logits.float()


def test_the_plugin_keeps_the_contract():
    assert check_plugin("export-bnb")


@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_is_merged_and_the_whole_rounded_in_one_go(tmp_path, bits):
    base = open_run("chat", None, ["--model_name_or_path", "ftk://random/llama"]).model(trainable=False)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(base, config)
    model.save_pretrained(tmp_path / "adapter")
    words = ["--export_format", "bnb", "--export_quantization_bit", str(bits), "--export_tolerance", "0.4"]
    run = exporting(tmp_path, *words, adapter_name_or_path=str(tmp_path / "adapter"))
    assert "prompts: logits" in export_run(run, tmp_path / "out")

    model.merge_and_unload().save_pretrained(tmp_path / "plain")
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=FEW[bits])
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.config.quantization_config.quant_method == "bitsandbytes"
    torch.testing.assert_close(logits(found), logits(wanted))
    assert not (tmp_path / "out" / "Modelfile").exists()
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_bits_that_it_has_not_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="3: bnb can do 4, 8"):
        check_target(exporting(tmp_path, "--export_format", "bnb", "--export_quantization_bit", "3"))
