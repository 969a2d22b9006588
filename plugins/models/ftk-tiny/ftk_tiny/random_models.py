"""Random models of any transformers family, small enough to train a step in milliseconds.

The same address gives the same weights on every machine with the same torch and transformers: the seed is part of it,
and so is everything else that the folder's name digests.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from ftk import ModelError
from ftk.errors import did_you_mean
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from ftk_tiny.locating import TINY_CHAT
from ftk_tiny.seeing_models import CHAT, EYES, add_tokens, save_processor, seeing_config

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
RECIPE = 1
"""Counts up when the same address shall give other weights."""

SMALL: Mapping[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 128, "max_position_embeddings": 512, "n_inner": 128, "ffn_dim": 128, "word_embed_proj_dim": 64,
    "ffn_hidden_size": 128, "rotary_dim": 8,
    # mixtures of experts
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_topk": 2,
    "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 32, "moe_num_experts": 4,
    "shared_expert_intermediate_size": 32, "intermediate_size_mlp": 128, "first_k_dense_replace": 1,
    # low-rank attention (DeepSeek)
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    # state spaces
    "state_size": 8, "time_step_rank": 8, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16,
    "mamba_d_state": 8, "mamba_chunk_size": 16, "conv_dim": 64, "conv_dim_out": 64,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    # mixed kinds of layers: both kinds within two layers
    "full_attention_interval": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
    # Gemma 3n and 4
    "hidden_size_per_layer_input": 16, "query_pre_attn_scalar": 16,
    "num_kv_shared_layers": 0, "global_head_dim": 16, "num_global_key_value_heads": 2,
}  # fmt: skip
"""What a config gets when its class has the field."""

REFUSED = (ValueError, TypeError, AttributeError, StrictDataclassError)
"""What configs raise for values that do not fit."""

MOST = 20_000_000
"""Parameters of the largest model that is made; a family whose sizes SMALL misses would fill the disk."""


def random_model(family: str, changes: Mapping[str, str], cache: Path, where: str) -> Path:
    """The folder of a random causal language model with the tokenizer of tiny-chat; made once, then reused.

    family: transformers' ``model_type``, also one of those that see (:data:`ftk_tiny.seeing_models.EYES`).
    changes: ``seed`` and fields of its config, as text.
    Raises ModelError that begins with ``where``.
    """
    if family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and family not in EYES:
        guess = did_you_mean(family, (*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *EYES))
        raise ModelError(
            f"{where}: transformers {transformers.__version__} has no causal language model {family}.{guess}"
        )
    given = {key: _value(key, text, where) for key, text in changes.items()}
    seed = given.pop("seed", 0)
    if not isinstance(seed, int):
        raise ModelError(f"{where}: seed={seed}: is no whole number")
    target = cache / _digest(family, given, seed)
    if not target.is_dir():
        _put(target, lambda folder: _make(folder, family, given, seed, where))
    return target


def _value(key: str, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if text:
            return text
        raise ModelError(f"{where}: {key}: has no value. Write {key}=...") from None


def _digest(family: str, given: Mapping[str, Any], seed: int) -> str:
    tokenizer = hashlib.sha256(b"".join((TINY_CHAT / name).read_bytes() for name in TOKENIZER)).hexdigest()
    versions: list[Any] = [RECIPE, torch.__version__, transformers.__version__]
    if family in EYES:
        versions.append(hashlib.sha256(CHAT.read_bytes()).hexdigest())
    content = json.dumps([family, dict(sorted(given.items())), seed, tokenizer, versions])
    return f"{family}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _put(target: Path, make: Callable[[Path], None]) -> None:
    """Fill a folder aside and rename it, so that processes that want the same model never see half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".aside-", dir=target.parent))
    try:
        make(aside)
        aside.chmod(0o755)  # mkdtemp's folders are for their owner alone
        os.rename(aside, target)
    except OSError:
        if not target.is_dir():  # else another process was quicker, with the same bytes
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _make(folder: Path, family: str, given: Mapping[str, Any], seed: int, where: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHAT, local_files_only=True)
    auto = AutoModelForImageTextToText if family in EYES else AutoModelForCausalLM
    with _quiet(), torch.random.fork_rng():
        if family in EYES:
            add_tokens(family, tokenizer)
        config = _config(family, given, tokenizer, where)
        try:
            with torch.device("meta"):
                size = auto.from_config(config).num_parameters()
            if size > MOST:
                raise ModelError(f"{where}: {family} would have {size:,} parameters; at most {MOST:,} are made")
            torch.manual_seed(seed)
            auto.from_config(config).save_pretrained(folder)
            if family in EYES:
                save_processor(family, tokenizer, config, folder)
                return
        except (*REFUSED, RuntimeError, ImportError, KeyError) as cause:
            raise ModelError(f"{where}: {family} cannot be made this small: {' '.join(str(cause).split())}") from cause
    for name in TOKENIZER:
        shutil.copyfile(TINY_CHAT / name, folder / name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers says about configs that nobody will see, and its progress bars."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _config(family: str, given: Mapping[str, Any], tokenizer: Any, where: str) -> Any:
    if family in EYES:
        try:
            return seeing_config(
                family, given, tokenizer, where, lambda text, of_text: _config(text, of_text, tokenizer, where)
            )
        except REFUSED as cause:
            raise _refused(family, cause, where) from cause
    kind = CONFIG_MAPPING[family]
    plain = kind().to_dict()
    fields = {*plain, *kind.attribute_map}
    for key in given:
        if key not in fields:
            guess = did_you_mean(key, fields)
            raise ModelError(f"{where}: {key}: is no field of {kind.__name__}.{guess}")
    fixed = {key for key in SMALL if isinstance(getattr(kind, key, None), property)}
    small = {key: value for key, value in SMALL.items() if key in fields - fixed}
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    words = {key: len(tokenizer) for key in ("vocab_size", "vocab_size_per_layer_input") if key in fields}
    values = {**small, **_consistent(plain, small, given), **words, "dtype": "float32", **tokens}
    try:
        # under the name that the class itself uses (GPT-2: n_head), so that a given value replaces the small one
        return kind(**{kind.attribute_map.get(key, key): value for key, value in [*values.items(), *given.items()]})
    except REFUSED as cause:
        raise _refused(family, cause, where) from cause


def _refused(family: str, cause: Exception, where: str) -> ModelError:
    return ModelError(f"{where}: {family} does not take these values: {' '.join(str(cause).split())}")


def _consistent(plain: Mapping[str, Any], small: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that depend on others and that the config classes do not derive themselves."""
    found: dict[str, Any] = {}
    if plain.get("sliding_window"):
        found["sliding_window"] = 32
    if "qk_rope_head_dim" in small:  # latent attention: every head has its own keys, rotated in these dimensions alone
        found |= {"head_dim": small["qk_rope_head_dim"], "num_key_value_heads": small["num_attention_heads"]}
    if "linear_attention" in (plain.get("layer_types") or ()):
        layers = given.get("num_hidden_layers", small["num_hidden_layers"])
        if isinstance(layers, int):
            found["layer_types"] = (["linear_attention", "full_attention"] * layers)[:layers]
    return found
