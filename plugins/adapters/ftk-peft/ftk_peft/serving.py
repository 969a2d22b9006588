"""What a server of its own loads for a run: a base with plain LoRA adapters beside it, or the merged model as a folder.

Servers (vLLM, SGLang) read plain LoRA and nothing else, and some of them take the rest of an adapter's config for
granted, so everything else is merged here, by the code that trained it.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ftk import Command, ConfigError, ModelError
from ftk.plan import make_plan
from ftk.run import Run

from ftk_peft import NamedAdapterOptions
from ftk_peft.applying import find_adapter

if TYPE_CHECKING:
    from ftk.specs import ModelLoader, ModelPatch

log = logging.getLogger("ftk.peft")

LOADING = Command("served-model", uses=("model_loader", "quantizer", "model_patch", "adapter"))
CHANGES = (
    "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "trainable_token_indices",
    "target_parameters", "layer_replication", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config",
)  # fmt: skip
"""Keys of an ``adapter_config.json`` that make more of a LoRA than two factors on linear layers."""
BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva")
"""``init_lora_weights`` that leave the base as it is; others (PiSSA, OLoRA, LoftQ, CorDA) take something away."""


@dataclass
class Served:
    """model: folder or hub name of the base. own: the folder of the run's own adapter, which answers unless a request
    names another. named: those of ``lora_modules``. rank: the largest of them. ends: tokens that end the model's
    answers. limit: how many tokens it reads.
    """

    model: str
    own: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    rank: int = 0
    ends: tuple[int, ...] = ()
    limit: int | None = None
    made: Path | None = None

    def close(self) -> None:
        """Remove what was made for the server. Calling it twice is harmless."""
        if self.made is not None:
            shutil.rmtree(self.made, ignore_errors=True)
            self.made = None


def served(run: Run, engine: str, rslora: bool = True) -> Served:
    """What ``engine`` loads for a run. rslora: whether it scales such adapters as peft does.

    One plain LoRA adapter stays beside its base. Several, other kinds, and what a model patch changes are merged into a
    folder that ``close`` removes. Raises ModelError, and ConfigError for a named adapter that is not plain.
    """
    paths = [_local(path, run) for path in run.value("adapter_name_or_path")]
    named = {name: _local(path, run, "lora_modules") for name, path in _named(run).items()}
    for name, folder in named.items():
        if why := not_plain(_config(folder), rslora):
            raise ConfigError(
                f"{run.plan.where('lora_modules')}: {name}: has {why}, which {engine} does not serve beside a base. "
                "Merge it: ftk export"
            )
    beside = not paths or (len(paths) == 1 and not not_plain(_config(paths[0]), rslora))
    made = Served(run.model_path, paths[0] if paths else None, named) if beside and not _patched(run) else None
    if made is None:
        made = _merged(run, named)
    made.rank = max((int(_config(one)["r"]) for one in (made.own, *named.values()) if one), default=0)
    made.ends, made.limit = _ends(run), _limit(run)
    return made


def not_plain(config: Mapping[str, Any], rslora: bool = True) -> str:
    """What makes an adapter other than plain LoRA, in a word; empty when nothing does. config: its peft config."""
    if (kind := str(getattr(config["peft_type"], "value", config["peft_type"]))) != "LORA":
        return kind.lower()
    if config.get("bias", "none") != "none":
        return f"bias: {config['bias']}"
    if config.get("use_rslora") and not rslora:
        return "use_rslora"
    return next((key for key in CHANGES if config.get(key)), "")


def changes_base(config: Mapping[str, Any]) -> bool:
    """Whether an adapter that learns took its beginning from the weights of its base, which are others since."""
    return config.get("init_lora_weights") not in BEGINNINGS


def _named(run: Run) -> Mapping[str, str]:
    return run.options(NamedAdapterOptions).lora_modules or {}


def _local(path: str, run: Run, key: str = "adapter_name_or_path") -> str:
    """The folder of an adapter, downloaded when it is on the hub."""
    found = find_adapter(path, run, key)
    if Path(found).is_dir():
        return found
    from huggingface_hub import snapshot_download

    where = f"{run.plan.where(key)}: {path}"
    try:
        folder = Path(snapshot_download(path, token=run.value("hf_hub_token"), cache_dir=run.value("cache_dir")))
    except (OSError, ValueError) as cause:
        raise ModelError(f"{where}: is no folder, and not on the hub: {' '.join(str(cause).split())[:200]}") from cause
    inner = folder / str(run.value("adapter_folder") or "")
    if not (inner / "adapter_config.json").is_file():
        raise ModelError(f"{where}: has no adapter_config.json")
    return str(inner)


def _config(folder: str | None) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(str(folder)) / "adapter_config.json").read_text(encoding="utf-8"))
    return content


def _patched(run: Run) -> bool:
    """Whether a patch makes another model of the files, or other code than the default loader's reads them.

    A patch does that through the config or the tokens, or by a switch that is not as it is by default.
    """
    known = run.plan.registry.options
    for spec in run.plan.chosen.get("model_patch", ()):
        patch = cast("ModelPatch", spec)
        switched = patch.switch is not None and run.value(patch.switch) != known[patch.switch].default
        if patch.config_target or patch.tokens_target or switched:
            return True
    loader = cast("ModelLoader | None", run.plan.one("model_loader"))
    return loader is not None and not loader.default and not loader.locate


def _merged(run: Run, named: Mapping[str, str]) -> Served:
    """The model as this run answers with it, in a folder of its own."""
    log.info("the model is put together in a temporary folder for the server; ftk export keeps one for good")
    beneath = Run(make_plan(run.plan.given, run.plan.registry, config=run.plan.config, command=LOADING))
    model = beneath.model(trainable=False)
    folder = Path(tempfile.mkdtemp(prefix="ftk-served-"))
    try:
        model.save_pretrained(folder)
        (run.processor or run.tokenizer).save_pretrained(folder)
    except BaseException as cause:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(cause, OSError):
            raise ModelError(f"{folder}: the model cannot be written: {cause.strerror}. Set TMPDIR") from cause
        raise
    return Served(str(folder), None, named, made=folder)


def _ends(run: Run) -> tuple[int, ...]:
    """The tokens that end an answer, as ``generation_config.json`` or else ``config.json`` has them."""
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(run.model_path).eos_token_id
    except (OSError, ValueError):
        found = getattr(run.model_config, "eos_token_id", None)
    return tuple(found) if isinstance(found, list) else () if found is None else (found,)


def _limit(run: Run) -> int | None:
    config = run.model_config
    return None if config is None else getattr(config.get_text_config(), "max_position_embeddings", None)
