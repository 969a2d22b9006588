"""The model of a rehearsal: the user's tokenizer and templates beside random weights of a shrunken config.

Weights of the user's model are never read, nor downloaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ftk import Command, ConfigError, FtkError, ModelError
from ftk.opening import read_settings
from ftk.plan import make_plan
from ftk.run import Run

from ftk_verify.bench import muted
from ftk_verify.shrinking import MOST, shrunk

if TYPE_CHECKING:
    from ftk.registry import Registry

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".npz")
DESCRIBED = ("*.json", "*.jinja", "*.model", "*.txt", "*.py", "*.tiktoken")
"""Files of a model on the hub that are not its weights."""

BARE = Command("rehearse", uses=("model_loader",), summary="A model without patches and adapters")
PROBE_TOKENS = 16


def make(config: str, words: Sequence[str], registry: Registry, folder: Path, least: int) -> str:
    """Fill ``folder`` with the small model; returns what it is, for people. least: of its hidden size.

    When the narrow model does not work, the width stays and only the layers go.
    Raises ModelError when there is no small model of the architecture.
    """
    run = bare_run(config, words, registry)
    _copy_described(run, folder)
    original = run.model_config
    if original is None:
        raise ModelError(f"{run.plan.where('model_name_or_path')}: its loader does not tell the model's config")
    problem: Exception | None = None
    for smaller in (shrunk, _fewer_layers):
        try:
            made = smaller(original, least) if smaller is shrunk else smaller(original)
            return _saved(made, config, words, registry, folder)
        except FtkError:
            raise
        except Exception as error:  # what a family's code makes of sizes that nobody has published
            problem = error
    said = " ".join(str(problem).split())[:200]
    raise ModelError(
        f"{original.model_type}: no small model of it works: {type(problem).__name__}: {said}"
    ) from problem


def bare_run(config: str, words: Sequence[str], registry: Registry) -> Run:
    """A run that has nothing but the model of ``config`` as it is loaded."""
    settings, source = read_settings(config, words)
    return Run(make_plan(settings, registry, config=source, command=BARE))


def _copy_described(run: Run, folder: Path) -> None:
    """Everything but the weights: config, tokenizer, processor, templates, code."""
    source = Path(run.model_path).expanduser()
    if not source.is_dir():
        source = _downloaded(run)
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and not file.name.endswith((*WEIGHTS, ".index.json")):
            shutil.copyfile(file, folder / file.name)


def _downloaded(run: Run) -> Path:
    """The files of a model on the hub that are not its weights, in the hub library's cache."""
    from huggingface_hub import snapshot_download

    run.tokens  # noqa: B018 - in one line says what is wrong with a name that nobody knows
    known = run.plan.registry.options
    access = {"revision": "model_revision", "cache_dir": "cache_dir", "token": "hf_hub_token"}
    given = {name: run.value(key) for name, key in access.items() if key in known}
    return Path(
        snapshot_download(run.model_path, allow_patterns=list(DESCRIBED), ignore_patterns="*.index.json", **given)
    )


def _fewer_layers(config: Any) -> Any:
    made = shrunk(config, 1)
    wide = type(config).from_dict(config.to_dict())
    for part, small in ((wide, made), (wide.get_text_config(decoder=True), made.get_text_config(decoder=True))):
        for key, value in vars(small).items():
            old = vars(part).get(key)
            if key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") or (
                isinstance(value, list) and isinstance(old, list) and len(old) > len(value) and "layer" in key
            ):
                setattr(part, key, value)
    return wide


def _saved(small: Any, config: str, words: Sequence[str], registry: Registry, folder: Path) -> str:
    content = {key: value for key, value in small.to_dict().items() if key != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
    random = [*words, *small_words(folder), "--train_from_scratch=true"]
    with muted():
        with torch.device("meta"):
            size = bare_run(config, random, registry).model(trainable=False).num_parameters()
        if size > MOST:
            raise ConfigError(f"{small.model_type}: the small model would have {size:,} parameters")
        model = bare_run(config, random, registry).model(trainable=False).float()
        _probe(model)
        ends = folder / "generation_config.json"
        stated = ends.read_bytes() if ends.exists() else None
        model.save_pretrained(folder)
        if stated is not None:
            ends.write_bytes(stated)  # the tokens at which the user's model stops
    layers = getattr(small.get_text_config(decoder=True), "num_hidden_layers", "?")
    return f"{small.model_type} with {layers} layers, {size / 1e6:.1f} million random weights"


def small_words(folder: Path) -> list[str]:
    """What makes a run take the model in ``folder``."""
    return [f"--model_name_or_path={folder}", "--model_loader=null"]


def _probe(model: Any) -> None:
    """One forward pass of a few tokens and its gradients."""
    vocabulary = model.get_input_embeddings().num_embeddings
    ids_BT = torch.arange(3, 3 + PROBE_TOKENS)[None] % vocabulary
    loss = model(input_ids=ids_BT, labels=ids_BT).loss
    if not torch.isfinite(loss):
        raise ValueError(f"its loss is {loss.item()}")
    loss.backward()
    model.zero_grad(set_to_none=True)
