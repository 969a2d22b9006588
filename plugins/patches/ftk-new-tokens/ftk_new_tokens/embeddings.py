"""Rows for new tokens in the embeddings and the output layer.

A new row begins with the mean of all known ones and Gaussian noise (Hewitt 2021, "Initializing New Word Embeddings": a
mean keeps the partition function in bounds, where small random rows would be likelier than any word), or with the mean
of the rows of its description. V rows, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ftk_new_tokens import NewTokensOptions
from ftk_new_tokens.tokens import descriptions

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.new-tokens")

MULTIPLE = 64
"""Matrices whose sides are multiples of it are the quickest on accelerators."""


def fit(model: Any, run: Run) -> Any:
    """The model with a row for each token of the tokenizer, those of new tokens initialised; once for a model.

    The same run gives the same rows wherever the model is loaded, so that an adapter finds the base it learnt on.
    """
    return run.once(f"ftk_new_tokens.{id(model)}", lambda: _fitted(model, run))


def _fitted(model: Any, run: Run) -> Any:
    tokenizer, new = run.tokenizer, run.tokens.added
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=MULTIPLE, mean_resizing=False)
        log.info("embeddings: %d rows, were %d", model.get_input_embeddings().weight.shape[0], rows)
    known = min(rows, len(tokenizer) - len(new))  # some models have more rows than their tokenizer has tokens
    blank = sorted({*new, *range(rows, model.get_input_embeddings().weight.shape[0])})
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    weights = {layer.weight.data_ptr(): layer.weight for layer in layers if layer is not None}
    meanings = _meanings(run, known)
    generator = torch.Generator().manual_seed(run.seed)
    for weight in weights.values():  # one, when the output layer is the embeddings
        _initialise(weight.data, known, blank, meanings, generator, run.options(NewTokensOptions).init_special_tokens)
    return model


def _meanings(run: Run, known: int) -> Mapping[int, list[int]]:
    """New token → the tokens of its description that are not new themselves."""
    tokenizer, found = run.tokenizer, {}
    for token, text in descriptions(run).items():
        ids = [one for one in tokenizer(text, add_special_tokens=False)["input_ids"] if one < known]
        if ids:
            found[int(tokenizer.convert_tokens_to_ids(token))] = ids
    return found


def _initialise(
    weight_VD: torch.Tensor,
    known: int,
    blank: Iterable[int],
    meanings: Mapping[int, list[int]],
    generator: torch.Generator,
    way: str,
) -> None:
    """Fill the ``blank`` rows from the first ``known`` ones. The noise has deviation D^-0.5."""
    width = weight_VD.shape[1]
    mean_D = weight_VD[:known].float().mean(dim=0)
    for row in blank:
        described = row in meanings and way != "noise_init"
        start_D = weight_VD[meanings[row]].float().mean(dim=0) if described else mean_D
        noise_D = torch.randn(width, generator=generator).to(start_D) * width**-0.5
        quiet = described and way == "desc_init"
        weight_VD[row] = (start_D if quiet else start_D + noise_D).to(weight_VD.dtype)
