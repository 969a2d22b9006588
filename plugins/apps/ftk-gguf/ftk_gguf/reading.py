"""A GGUF file read back by others: the ``gguf`` package's reader, and transformers' own loading of such files.

transformers has names, an order of rows and dequantised numbers of its own, so that a mistake in the writing shows. The
settings come from the model's config, because it reads few of those in a file; those in the file are compared here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from ftk import Message
from ftk_export.gate import ParityError, logits_of
from gguf import GGUFReader
from transformers import modeling_gguf_pytorch_utils as readers

from ftk_gguf import FILE, GgufOptions
from ftk_gguf.families import family_of

if TYPE_CHECKING:
    from ftk.run import Run

TOLERANCES = {"f16": 3e-3, "q8_0": 3e-2, "f32": 1e-4}
"""Shares of the norm of logits: a few times what rounding to 11 and to 8 bits does to a model of many layers."""

KNOWN_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "</s>", "<|end_of_text|>",
    "<eos>",
)  # fmt: skip
"""Tokens at which llama.cpp ends an answer for their text alone."""


def opened(folder: Path, run: Run, model: Any) -> GgufFile:
    """Raises ParityError when the file lacks a weight or says other tokens than the run's tokenizer."""
    return GgufFile(folder / FILE, run, model)


class GgufFile:
    """A file as others read it."""

    def __init__(self, path: Path, run: Run, model: Any) -> None:
        self.run = run
        self.tolerance = TOLERANCES[run.options(GgufOptions).gguf_type]
        self.fields = GGUFReader(path).fields
        self.tokens: list[str] = self.said("tokenizer.ggml.tokens")
        for token, number in run.tokenizer.get_vocab().items():
            if self.tokens[number] != token:
                raise ParityError(f"token {number} is {self.tokens[number]!r} in the file, {token!r} in the run")
        self.model = loaded(path, model)

    def said(self, key: str) -> Any:
        """What the file says under a key; None where it says nothing."""
        return self.fields[key].contents() if key in self.fields else None

    def logits(self, ids: Sequence[int], shown: Mapping[str, Any] | None = None) -> torch.Tensor:
        return logits_of(self.model, ids, shown)

    def prompt(self, messages: Sequence[Message]) -> str | None:
        talk = [{"role": one.role, "content": one.text} for one in messages]
        template = self.said("tokenizer.chat_template")
        return str(
            self.run.tokenizer.apply_chat_template(
                talk, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        )

    def stops(self) -> set[int] | None:
        named = {self.said(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
        return (named - {None}) | {self.tokens.index(text) for text in KNOWN_ENDS if text in self.tokens}


def loaded(path: Path, model: Any) -> Any:
    """A model of the same class with the weights that transformers finds in the file. Or ParityError."""
    from transformers.initialization import no_init_weights

    config = deepcopy(model.config)
    with no_init_weights():
        found = type(model)(config).to(model.dtype)
    arch = family_of(config).arch
    said = SimpleNamespace(model_type=arch, num_hidden_layers=config.num_hidden_layers)
    named = SimpleNamespace(config=said, state_dict=found.state_dict, named_children=tuple)
    with quiet_reader():
        weights = readers.load_gguf_checkpoint(
            str(path), return_tensors=True, model_to_load=named, torch_dtype=model.dtype
        )["tensors"]
    missing, unknown = found.load_state_dict(weights, strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if lost := (set(missing) - tied) | set(unknown):
        raise ParityError(f"the file does not fit: {', '.join(sorted(lost))}")
    found.tie_weights()
    return found.eval()


@contextmanager
def quiet_reader() -> Iterator[None]:
    """transformers' reader without its progress bar, and with Gemma 1.

    It reads (5.19) the files of Gemma 2 and 3, whose norms are as those of the first, but not the first's.
    """
    configs, bar = readers.GGUF_TO_TRANSFORMERS_MAPPING["config"], readers.tqdm
    known = "gemma" in configs
    readers.tqdm = lambda rows, **_: rows
    if not known:
        configs["gemma"] = configs["gemma2"]
        readers.GGUF_SUPPORTED_ARCHITECTURES.append("gemma")
        readers.TENSOR_PROCESSORS["gemma"] = readers.Gemma2TensorProcessor
    try:
        yield
    finally:
        readers.tqdm = bar
        if not known:
            del configs["gemma"], readers.TENSOR_PROCESSORS["gemma"]
            readers.GGUF_SUPPORTED_ARCHITECTURES.remove("gemma")
