"""One GGUF file: settings and tokens first, then the tensors, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch
from ftk import Message, ModelError
from ftk_data import renderer
from ftk_export.writing import stop_ids
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

from ftk_gguf import FILE, GgufOptions
from ftk_gguf.families import Family, family_of
from ftk_gguf.rope import factors, head_dim, write_rope
from ftk_gguf.words import words_of, write_words

if TYPE_CHECKING:
    from ftk.run import Run

TYPES = {
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
}
BLOCK = 32
"""Weights of a row that share a scale in Q8_0."""


def write(model: Any, folder: Path, run: Run) -> None:
    """Raises ModelError for what llama.cpp cannot be told, before anything is written."""
    kind, file_type = TYPES[run.options(GgufOptions).gguf_type]
    family = family_of(model.config)
    named = list(tensors(model, family))
    words = words_of(run.tokenizer, model.get_input_embeddings().num_embeddings)
    writer = GGUFWriter(folder / FILE, family.arch)
    write_settings(writer, model.config, family)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_words(writer, words)
    write_chat(writer, model, run)
    for name, weight in named:
        form = form_of(name, weight, kind)
        count = weight.numel()
        size = count // BLOCK * 34 if form is GGMLQuantizationType.Q8_0 else count * (2 if form.name == "F16" else 4)
        writer.add_tensor_info(name, list(weight.shape), np.dtype(np.float16), size, raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, weight in named:
        writer.write_tensor_data(as_form(name, weight, form_of(name, weight, kind), model.config, family))
    writer.close()


def write_settings(writer: GGUFWriter, config: Any, family: Family) -> None:
    writer.add_type("model")
    writer.add_name(config.model_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    write_rope(writer, config)
    for key, value in family.extra(config).items():
        getattr(writer, f"add_{key}")(value)


def write_chat(writer: GGUFWriter, model: Any, run: Run) -> None:
    """The chat template, the tokens that end an answer, and whether a text begins with its own token, as trained."""
    template, tokenizer = renderer(run), run.tokenizer
    writer.add_chat_template(template.jinja())
    begins = template.prompt_text((Message("user", "x"),)).startswith(tokenizer.bos_token or "\0")
    writer.add_add_bos_token(begins)
    for name in ("bos", "pad", "unk"):
        if (number := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    added = tokenizer.get_added_vocab()
    trained = next((added[stop] for stop in template.stop if stop in added), tokenizer.eos_token_id)
    found = stop_ids(template, tokenizer, model.generation_config)
    others = [one for one in (found if isinstance(found, list) else [found]) if one not in (None, trained)]
    writer.add_eos_token_id(trained)
    for name, number in zip(("eot", "eom"), others, strict=False):
        getattr(writer, f"add_{name}_token_id")(number)


def tensors(model: Any, family: Family) -> Iterator[tuple[str, torch.Tensor]]:
    """(GGUF's name, the weight as transformers has it). Raises ModelError for one without a name there."""
    config = model.config
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, factor in factors(config):
        yield name, torch.from_numpy(factor)
    for name, weight in model.named_parameters():  # a weight that two layers share comes once
        there = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if there is None:
            raise ModelError(f"gguf: {name}: a {family.arch} model has no place for it in GGUF")
        yield there, weight.detach()


def form_of(name: str, weight: torch.Tensor, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """Vectors stay whole numbers of 32 bits; rows that do not divide into blocks are halves."""
    if weight.dim() < 2 or wanted is GGMLQuantizationType.F32:
        return GGMLQuantizationType.F32
    if wanted is GGMLQuantizationType.Q8_0 and weight.shape[-1] % BLOCK:
        return GGMLQuantizationType.F16
    return wanted


def as_form(name: str, weight: torch.Tensor, form: GGMLQuantizationType, config: Any, family: Family) -> np.ndarray:
    """The bytes of a tensor. Raises ModelError for a number that halves cannot hold."""
    value = weight.float()
    if family.norm_plus_one and name.endswith("norm.weight"):
        value = value + 1
    if family.interleaved and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        value = in_pairs(value, heads)
    made = gguf.quantize(value.contiguous().cpu().numpy(), form)
    if form is not GGMLQuantizationType.Q8_0 and not np.isfinite(made).all():
        raise ModelError(f"gguf: {name} has numbers that {form.name} cannot hold. Take gguf_type: f32")
    return np.ascontiguousarray(made)


def in_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head from two halves, which transformers rotates together, to neighbours."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(weight.shape)
