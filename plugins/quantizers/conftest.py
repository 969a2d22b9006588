"""What tests share whose files are packed by hand: such a model beside a plain one with the same numbers."""

import json
import shutil

import pytest
from ftk.opening import open_run
from safetensors.torch import load_file, save_file

PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture
def stored(tmp_path):
    """``stored(family, pack, config)``: (folder of a quantised model, folder of a plain one with the same numbers).

    ``pack(weight)`` gives the tensors of a layer and the weight that they stand for; experts and towers are spared.
    """

    def write(family, pack, config):
        source = open_run("chat", None, ["--model_name_or_path", f"ftk://random/{family}"]).model_path
        folders = [shutil.copytree(source, tmp_path / name) for name in ("quantised", "plain")]
        tensors = load_file(folders[0] / "model.safetensors")
        few, plain = {}, {}
        for name, value in tensors.items():
            layer, _, last = name.rpartition(".")
            if last == "weight" and layer.endswith(PARTS) and "experts" not in layer and "vision" not in layer:
                made, plain[name] = pack(value)
                few |= {f"{layer}.{field}": tensor for field, tensor in made.items()}
            else:
                few[name] = plain[name] = value
        for folder, content in zip(folders, (few, plain), strict=True):
            save_file(content, folder / "model.safetensors", {"format": "pt"})
        text = json.loads((folders[0] / "config.json").read_text())
        (folders[0] / "config.json").write_text(json.dumps({**text, "quantization_config": config}))
        return folders

    return write
