"""A tokenizer as GGUF says it: every token with its kind, merges or scores, and the name of what cuts text before.

llama.cpp has the cutting built in, by name, so a tokenizer that cuts in a way that none of the names stands for cannot
leave: it would read other tokens than were trained. What is cut is compared, not the name of the family.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftk import ModelError
from gguf import GGUFWriter, TokenType

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SLASHES = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
BEFORE = r"[^\r\n\p{L}\p{N}]?"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

PRE: Mapping[tuple[str, bool], str] = {
    (GPT2, False): "gpt-2",
    (rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}{{1,3}}{REST}", True): "llama-bpe",
    (rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}{{1,3}}{REST}", False): "dbrx",
    (rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}{REST}", False): "qwen2",
    (rf"{BEFORE}{UPPER}*{LOWER}+|{BEFORE}{UPPER}+{LOWER}*|\p{{N}}{SLASHES}", True): "tekken",
    (
        rf"{BEFORE}{UPPER}*{LOWER}+{CONTRACTIONS}?|{BEFORE}{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}{SLASHES}",
        False,
    ): "gpt-4o",
}  # fmt: skip
"""(the pattern that cuts text, whether whole words are looked up before merges) → llama.cpp's name."""

NEVER_MERGED = -1e9


@dataclass(frozen=True)
class Words:
    """What the file says of tokens, in the order of their numbers."""

    model: str
    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]
    space_first: bool | None


def words_of(tokenizer: Any, rows: int) -> Words:
    """``rows``: of the embeddings; numbers without a token get one that is never used.

    Raises ModelError for a tokenizer that llama.cpp cannot be.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    if model["type"] != "BPE":
        raise ModelError(f"gguf: tokenizers of type {model['type']} cannot leave as GGUF; BPE can")
    tokens, kinds = _tokens(tokenizer, content, rows)
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    if model.get("byte_fallback"):
        space = _space_first(content)
        return Words("llama", "default", tokens, kinds, [], _scores(tokens, kinds, pairs), space)
    return Words("gpt2", _pre(content), tokens, kinds, pairs, [], None)


def _tokens(tokenizer: Any, content: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    found = {number: token for token, number in tokenizer.get_vocab().items()}
    if max(found) >= rows:
        raise ModelError(f"gguf: the tokenizer has {max(found) + 1} tokens and the model {rows}. resize_vocab: true")
    added = {one["id"]: one for one in content["added_tokens"]}
    unknown = content["model"].get("unk_token")
    kinds = []
    for number in range(rows):
        token = found.get(number)
        if token is None:
            kind = TokenType.UNUSED
        elif token == unknown and content["model"].get("byte_fallback"):
            kind = TokenType.UNKNOWN
        elif number in added:
            kind = TokenType.CONTROL if added[number]["special"] else TokenType.USER_DEFINED
        elif len(token) == 6 and token.startswith("<0x") and content["model"].get("byte_fallback"):
            kind = TokenType.BYTE
        else:
            kind = TokenType.NORMAL
        kinds.append(int(kind))
    return [found.get(number, f"[PAD{number}]") for number in range(rows)], kinds


def _scores(tokens: list[str], kinds: list[int], pairs: list[str]) -> list[float]:
    """SentencePiece merges the pair whose result has the best score: the one that was learnt first."""
    learnt: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        learnt.setdefault(pair.replace(" ", ""), rank)
    normal = int(TokenType.NORMAL)
    return [
        -float(learnt[token]) if token in learnt else NEVER_MERGED if kind == normal and len(token) > 1 else 0.0
        for token, kind in zip(tokens, kinds, strict=True)
    ]


def _space_first(content: dict[str, Any]) -> bool:
    """Whether a space is put before a text."""
    said = json.dumps([content.get("normalizer"), content.get("pre_tokenizer")])
    return '"Prepend"' in said or ('"Metaspace"' in said and '"prepend_scheme": "never"' not in said)


def _pre(content: dict[str, Any]) -> str:
    cutting = content.get("pre_tokenizer") or {}
    steps = cutting.get("pretokenizers", [cutting])
    last = steps[-1] if steps else {}
    pattern = None
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if len(steps) == 1 and last.get("use_regex", True):
            pattern = GPT2
        elif len(steps) == 2 and steps[0]["type"] == "Split" and not last.get("use_regex", True):
            pattern = steps[0]["pattern"].get("Regex")
    name = PRE.get((str(pattern), bool(content["model"].get("ignore_merges"))))
    if name is None:
        shown = json.dumps(cutting, ensure_ascii=False)[:200]
        raise ModelError(
            f"gguf: llama.cpp has no name for how this tokenizer cuts text ({', '.join(PRE.values())}): {shown}"
        )
    return name


def write_words(writer: GGUFWriter, words: Words) -> None:
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    if words.merges:
        writer.add_token_merges(words.merges)
    if words.scores:
        writer.add_token_scores(words.scores)
    if words.space_first is not None:
        writer.add_add_space_prefix(words.space_first)
