"""Tokens that a model did not have: into its tokenizer, its embeddings and its output layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ftk


@ftk.options
class NewTokensOptions:
    """Which tokens are new, and what their embeddings begin with."""

    add_tokens: tuple[str, ...] = ftk.option((), help="Words that become one token each.", excludes=("quantizer",))
    add_special_tokens: tuple[str, ...] = ftk.option(
        (), help="Control tokens, which decoding leaves out.", excludes=("quantizer",)
    )
    new_special_tokens_config: str | None = ftk.option(
        None,
        help="YAML file of control tokens and what each means, token: description.",
        excludes=("quantizer", "add_special_tokens"),
    )
    init_special_tokens: Literal["noise_init", "desc_init", "desc_init_w_noise"] = ftk.option(
        "noise_init",
        help="What embeddings of new tokens begin with: the mean of all and noise, the mean of their description's, "
        "or that and noise. Tokens without a description begin with the mean of all and noise.",
    )
    resize_vocab: bool = ftk.option(
        False, help="Make the embeddings as large as the tokenizer, in multiples of 64.", excludes=("quantizer",)
    )


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    for name, switch, tokens, summary in (
        ("new-tokens", "add_tokens", "add_words", "Words that become one token each"),
        ("new-special-tokens", "add_special_tokens", "add_control", "Control tokens"),
        ("described-tokens", "new_special_tokens_config", "add_described", "Control tokens with a meaning"),
        ("resize-vocab", "resize_vocab", None, "Embeddings as large as the tokenizer"),
    ):
        yield ftk.ModelPatch(
            name,
            tokens_target=f"ftk_new_tokens.tokens:{tokens}" if tokens else None,
            target="ftk_new_tokens.embeddings:fit",
            options=NewTokensOptions,
            switch=switch,
            summary=summary,
        )
