"""What a model's folder must hold, looked at before anything is imported or tokenised."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ftk import ModelError

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order in which transformers looks for them."""

TOKENIZER = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json", "qwen.tiktoken",
)  # fmt: skip
"""Any one of these; without all of them transformers builds a tokenizer that knows no words."""

PROCESSOR = ("processor_config.json", "preprocessor_config.json")
"""Either one, of a model that takes media."""

POINTER = b"version https://git-lfs"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def local_folder(name: str, where: str) -> Path | None:
    """The folder that ``name`` is, None when it can only be a name on the hub.

    ``where`` begins the error messages. Raises ModelError for a file, and for a path that is not there.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"{where} is a file. Give the folder that holds {CONFIG}")
    if name.startswith((".", "/", "~")) or not HUB_NAME.fullmatch(name):
        raise ModelError(f"{where}: there is no such folder. Give a folder with {CONFIG}, or owner/name on the hub")
    return None


def check_folder(folder: Path, where: str, *, weights: bool) -> None:
    """Raises ModelError when the config, the tokenizer or, with ``weights``, the weights are missing or cut short."""
    if not (folder / CONFIG).is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{where} is an adapter. Give it as adapter_name_or_path, and its base model as model_name_or_path"
            )
        raise ModelError(f"{where}: has no {CONFIG}, so it is no model. {_holds(folder)}")
    if weights:
        _check_weights(folder, where)
    if not any((folder / name).is_file() for name in TOKENIZER) and not list(folder.glob("tokenization_*.py")):
        raise ModelError(f"{where}: has no tokenizer (no tokenizer.json or tokenizer.model). {_holds(folder)}")


def only_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer, but neither a model's config nor an adapter."""
    models = (folder / CONFIG, folder / "adapter_config.json")
    return any((folder / name).is_file() for name in TOKENIZER) and not any(file.is_file() for file in models)


def has_weights(folder: Path) -> bool:
    """Whether there are weights that transformers would load."""
    return any((folder / name).is_file() for name in WEIGHTS)


def has_processor(folder: Path) -> bool:
    """Whether the model says how media become tensors."""
    return any((folder / name).is_file() for name in PROCESSOR)


def _check_weights(folder: Path, where: str) -> None:
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ModelError(f"{where}: has no weights (no model.safetensors). {_holds(folder)}")
    files = [found]
    if found.suffix == ".json":
        try:
            files = [folder / name for name in sorted(set(json.loads(found.read_text("utf-8"))["weight_map"].values()))]
        except (OSError, ValueError, KeyError) as cause:
            raise ModelError(f"{found}: is damaged: {cause}. Download it again") from cause
    for file in files:
        if not file.is_file():
            raise ModelError(f"{where}: {file.name} is missing, though {found.name} lists it. Download it again")
        with file.open("rb") as opened:
            if opened.read(len(POINTER)) == POINTER:
                raise ModelError(f"{file}: is a git-lfs pointer and no weights. Run git lfs pull in that folder")


def _holds(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return f"It holds {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}" if names else "It is empty"
