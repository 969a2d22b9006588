"""New tokens in the tokenizer. What it knows already is left alone, so a saved result can be loaded the same way."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from ftk import ConfigError

from ftk_new_tokens import NewTokensOptions

if TYPE_CHECKING:
    from ftk import Tokens
    from ftk.run import Run

log = logging.getLogger("ftk.new-tokens")


def add_words(tokens: Tokens, run: Run) -> Tokens:
    """The tokens of ``add_tokens``."""
    return _add(tokens, run.options(NewTokensOptions).add_tokens, special=False)


def add_control(tokens: Tokens, run: Run) -> Tokens:
    """The tokens of ``add_special_tokens``."""
    return _add(tokens, run.options(NewTokensOptions).add_special_tokens, special=True)


def add_described(tokens: Tokens, run: Run) -> Tokens:
    """The tokens of ``new_special_tokens_config``. Raises ConfigError for a file that is no table of descriptions."""
    return _add(tokens, descriptions(run), special=True)


def descriptions(run: Run) -> Mapping[str, str]:
    """Token → what it means, from ``new_special_tokens_config``; empty without one.

    Raises ConfigError when the file cannot be read or is no table of texts.
    """
    name = run.options(NewTokensOptions).new_special_tokens_config
    if not name:
        return {}
    where = run.plan.where("new_special_tokens_config")
    try:
        content: Any = yaml.safe_load(Path(name).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        raise ConfigError(f"{where}: cannot be read: {' '.join(str(cause).split())[:200]}") from cause
    if not isinstance(content, dict) or not all(isinstance(one, str) for pair in content.items() for one in pair):
        raise ConfigError(f'{where}: is no table of texts. Write a line "<token>": what it means, for each token')
    return content


def _add(tokens: Tokens, wanted: Iterable[str], *, special: bool) -> Tokens:
    known = tokens.tokenizer.get_vocab()
    new = [one for one in dict.fromkeys(wanted) if one not in known]
    if not new:
        return tokens
    tokens.tokenizer.add_tokens(new, special_tokens=special)
    log.info("%d new tokens: %s", len(new), ", ".join(new))
    return replace(tokens, added=(*tokens.added, *tokens.tokenizer.convert_tokens_to_ids(new)))
