"""Answers in a form that was asked for: a JSON schema says at each token which may follow, by llguidance's grammars.

Shapes: V words of the model's output, which may be more than the tokenizer has.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from ftk import DataError

from ftk_hf_engine.picking import Allowed

WRITTEN = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As ``json.dumps`` does, without line breaks: a model that may write blanks forever will."""


class Shapes:
    """Makes grammars for one tokenizer. ``ends``: tokens that end an answer."""

    def __init__(self, tokenizer: Any, ends: Collection[int], words: int) -> None:
        self.tokenizer, self.ends, self.words = tokenizer, sorted(ends), words

    def allowed(self, schema: Mapping[str, Any]) -> Allowed:
        """What may follow in an answer to one prompt. Raises DataError for a schema that cannot be followed."""
        words = self._words
        from llguidance import LLMatcher

        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema or {"type": "object"}), defaults=WRITTEN)
            matcher = LLMatcher(words, grammar)
            problem = matcher.get_error() if matcher.is_error() else ""
        except ValueError as error:
            problem = str(error)
        if problem:
            raise DataError(f"schema: cannot be followed: {problem.splitlines()[0][:300]}")
        return _Follow(matcher, self.ends, self.words)

    @cached_property
    def _words(self) -> Any:
        if importlib.util.find_spec("llguidance") is None:
            raise DataError("schema: answers in JSON need llguidance. pip install 'ftk-hf-engine[backend]'")
        import llguidance.hf

        try:
            return llguidance.hf.from_tokenizer(self.tokenizer)
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"schema: llguidance cannot read this tokenizer: {error}") from error


class _Follow:
    """The state of one answer: called with its tokens so far, it gives the mask (V,) of what may follow."""

    def __init__(self, matcher: Any, ends: Sequence[int], words: int) -> None:
        self.matcher, self.ends, self.words = matcher, ends, words
        self._read = 0

    def __call__(self, tokens: Sequence[int]) -> torch.Tensor:
        mask_V = torch.zeros(self.words, dtype=torch.bool)
        if not self.matcher.is_stopped():
            new = [token for token in tokens[self._read :] if token not in self.ends]
            self._read = len(tokens)
            self.matcher.consume_tokens(new)
        if not self.matcher.is_stopped():
            bits = torch.frombuffer(bytearray(self.matcher.compute_bitmask()), dtype=torch.uint8)
            known_V = (bits[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).bool().flatten()[: self.words]
            mask_V[: len(known_V)] = known_V
        over = self.matcher.is_stopped() or self.matcher.is_accepting()
        mask_V[self.ends] = over
        if not mask_V.any():
            mask_V[self.ends] = True  # a dead end of the grammar ends the answer
        return mask_V
