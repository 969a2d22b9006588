"""Tokenizers, processors and language models, with or without eyes and ears, through transformers' auto classes.

``load_tokenizer`` is what a run asks for first, so it checks everything that can be checked without reading weights:
a missing file is reported before the data is tokenised, not after.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from ftk import ModelError, Tokens
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as logs

from ftk_hf import HfOptions
from ftk_hf.choosing import auto_class, load_processor, takes_media
from ftk_hf.explaining import explained
from ftk_hf.folders import check_folder, has_processor, has_weights, local_folder, only_tokenizer
from ftk_hf.plain import dequantize, save_plainly
from ftk_hf.quantised import own_device, quantization, report

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk.specs import Adapter

__all__ = ["dequantize", "load_config", "load_model", "load_tokenizer"]

log = logging.getLogger("ftk.hf")

ATTENTION = {"disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2", "fa3": "flash_attention_3"}


def load_tokenizer(run: Run) -> Tokens:
    """The tokenizer, with a padding token whatever the model brings, and the processor of a model that takes media.

    A tokenizer without one pads with its end token, or its unknown token when it has no end either; that is safe
    because rows carry their own labels and attention mask.
    Raises ModelError for whatever is missing, the weights included; a command that runs no model needs none, and of a
    folder the tokenizer alone will do for it.
    """
    folder = local_folder(run.model_path, _where(run))
    config = None if folder and not _runs_model(run) and only_tokenizer(folder) else load_config(run)
    if config is not None and _runs_model(run):
        quantization(run, config)
    with explained(_where(run)):
        processor = None
        if config is not None and takes_media(config) and (folder is None or has_processor(folder)):
            processor = load_processor(_name(run), _access(run))
        tokenizer = getattr(processor, "tokenizer", None) or AutoTokenizer.from_pretrained(_name(run), **_access(run))
    if not tokenizer.chat_template:
        tokenizer.chat_template = getattr(processor, "chat_template", None)
    if not len(tokenizer):
        raise ModelError(f"{_where(run)}: its tokenizer knows no words. Is tokenizer.json or tokenizer.model missing?")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise ModelError(f"{_where(run)}: its tokenizer has no end token. Set eos_token in tokenizer_config.json")
    if run.options(HfOptions).split_special_tokens:
        tokenizer.split_special_tokens = True  # ftk-data looks at it; the template's own tokens stay what they are
    return Tokens(tokenizer, processor, config.model_type if config is not None else "")


def load_model(run: Run) -> Any:
    """The language model, quantised and patched as the run says, on the CPU unless ``device_map`` spreads it.

    Raises ModelError when it cannot be loaded, or when weights are missing that would otherwise be random.
    """
    options = run.options(HfOptions)
    config = run.patch_config(copy.deepcopy(load_config(run)))
    stored, quantising = quantization(run, config)
    if stored is not None:
        config.quantization_config = stored
    arguments: dict[str, Any] = {"dtype": _dtype(run)}
    if options.flash_attn in ATTENTION:
        arguments["attn_implementation"] = ATTENTION[options.flash_attn]
    with explained(_where(run)), _bars_for_large(run):
        if _is_random(run):
            return _random_model(run, config, arguments)
        model, info = auto_class(config).from_pretrained(
            _name(run),
            config=config,
            quantization_config=quantising,
            output_loading_info=True,
            **arguments,
            **_access(run),
            **_placement(run, stored or quantising),
        )
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise ModelError(
            f"{_where(run)}: {len(names)} weights are missing in its files, for instance {names[0]}. "
            "Is it a whole language model?"
        )
    _compare_vocabularies(run, model)
    if getattr(model, "quantization_method", None) is not None:
        report(model, run.model_path)
    elif stored is not None:
        save_plainly(model)
    return model


def _random_model(run: Run, config: Any, arguments: dict[str, Any]) -> Any:
    dtype = torch.float32 if arguments["dtype"] == "auto" else arguments["dtype"]
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        model = auto_class(config).from_config(
            config, trust_remote_code=run.options(HfOptions).trust_remote_code, **{**arguments, "dtype": dtype}
        )
    log.info("%s: %s random weights", run.model_path, f"{model.num_parameters():,}")
    return model


def load_config(run: Run) -> Any:
    """The model's config, read once, after its folder has been checked."""

    def read() -> Any:
        folder = local_folder(run.model_path, _where(run))
        if folder:
            random = run.options(HfOptions).train_from_scratch
            check_folder(folder, _where(run), weights=_runs_model(run) and not random)
        with explained(_where(run)):
            config = AutoConfig.from_pretrained(_name(run), **_access(run))
        if auto_class(config) is None:
            raise ModelError(f"{_where(run)}: {config.model_type} is no causal language model")
        return config

    return run.once("ftk_hf.config", read)


def _runs_model(run: Run) -> bool:
    """Whether the run trains or asks the model, and does not only look at its tokenizer and rows."""
    command = run.plan.one("command")
    return command is None or any(kind in command.uses for kind in ("adapter", "engine"))


def _where(run: Run) -> str:
    return run.plan.where("model_name_or_path")


def _name(run: Run) -> str:
    folder = local_folder(run.model_path, _where(run))
    return str(folder) if folder else run.model_path


def _access(run: Run) -> dict[str, Any]:
    """How files are reached. A folder is read without asking the hub for anything."""
    options = run.options(HfOptions)
    arguments: dict[str, Any] = {"trust_remote_code": options.trust_remote_code}
    if local_folder(run.model_path, _where(run)):
        return {**arguments, "local_files_only": True}
    reached = {"revision": options.model_revision, "cache_dir": options.cache_dir, "token": options.hf_hub_token}
    return {**arguments, **reached}


def _is_random(run: Run) -> bool:
    """``train_from_scratch`` holds for the training run; afterwards its result, which has weights, is loaded."""
    if not run.options(HfOptions).train_from_scratch:
        return False
    folder = local_folder(run.model_path, _where(run))
    return run.plan.one("trainer") is not None or (folder is not None and not has_weights(folder))


def _dtype(run: Run) -> Any:
    """The type of the weights; ``auto`` is the one they are stored in.

    In mixed precision only weights that stay frozen are rounded to the type of the computation. Where the whole model
    is saved, weights learn, and rounding them before they are float32 would lose what the files hold.
    """
    if run.plan.one("trainer") is None:
        chosen = run.options(HfOptions).infer_dtype
        return "auto" if chosen == "auto" else getattr(torch, chosen)
    if _value(run, "pure_bf16"):
        return torch.bfloat16
    adapter = cast("Adapter | None", run.plan.one("adapter"))
    if adapter is None or adapter.saves == "model":
        return "auto"
    if _value(run, "bf16"):
        return torch.bfloat16
    return torch.float16 if _value(run, "fp16") else "auto"


def _placement(run: Run, quantised: Any) -> dict[str, Any]:
    """Where a model goes: as ``device_map`` says. Unsaid, training places its own, but quantised layers are made where
    they stay; a model that only answers goes over the accelerators, memory and disk.
    """
    options = run.options(HfOptions)
    if options.device_map is not None:
        return {"device_map": options.device_map, "offload_folder": options.offload_folder}
    if quantised and run.plan.one("trainer") is not None:
        return {"device_map": {"": own_device(run)}}
    alone = run.plan.one("trainer") is None and run.plan.one("engine") is not None
    if not alone or not torch.accelerator.is_available() or _value(run, "use_cpu") or "WORLD_SIZE" in os.environ:
        return {}
    return {"device_map": "auto", "offload_folder": options.offload_folder}


@contextmanager
def _bars_for_large(run: Run) -> Iterator[None]:
    """Progress bars where loading takes a while: for downloads, and for folders above a gigabyte."""
    folder = local_folder(run.model_path, _where(run))
    shown = logs.is_progress_bar_enabled()
    if shown and folder and sum(path.stat().st_size for path in folder.glob("*.*")) < 2**30:
        logs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logs.enable_progress_bar()


def _value(run: Run, key: str) -> Any:
    """An option of ftk-training, None in an installation that only answers."""
    return run.value(key) if key in run.plan.registry.options else None


def _compare_vocabularies(run: Run, model: Any) -> None:
    rows, known = model.get_input_embeddings().weight.shape[0], len(run.tokenizer) - len(run.tokens.added)
    if known > rows and not _value(run, "resize_vocab"):
        text = "%s: the tokenizer knows %d tokens, the model %d. If rows use the others, set resize_vocab: true"
        log.warning(text, run.model_path, known, rows)
