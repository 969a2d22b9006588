"""Errors that a user reads. Each is one line: where, what with the offending value, who, what to type next."""

from __future__ import annotations

from collections.abc import Iterable


class FtkError(Exception):
    """A mistake that the user can mend. Shown without a traceback; the command exits with ``exit_code``.

    status: what ``run.json`` calls a run that it has ended.
    """

    exit_code = 2
    status = "failed"


class ConfigError(FtkError):
    """The YAML or the command line asks for something that cannot be."""


class PluginError(FtkError):
    """A plugin that the run needs is missing, broken, disabled or in conflict."""


class DataError(FtkError):
    """A data set cannot be read, or a row of it is malformed."""


class ModelError(FtkError):
    """A model, tokenizer or adapter cannot be loaded."""


class CheckpointError(FtkError):
    """A checkpoint or a run directory cannot be written or read."""


class Problems(FtkError):
    """Several errors found in one go, a line each, so that nobody mends a config one error per start."""

    def __init__(self, errors: Iterable[FtkError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


def raise_all(errors: Iterable[FtkError]) -> None:
    """Raise the only error as it is, several as :class:`Problems`, and return if there is none. Lines are said once."""
    found = list({str(error): error for error in errors}.values())
    if len(found) == 1:
        raise found[0]
    if found:
        raise Problems(found)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" Did you mean lora_rank?"`` for the closest known word, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.7)
    return f" Did you mean {close[0]}?" if close else ""
