"""A plugin under check, and the error that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ftk.errors import PluginError
from ftk.options import OptionField, fields_of
from ftk.plugins import PluginRecord, missing_packages
from ftk.registry import Registry
from ftk.specs import Spec

CODE = (
    "target", "locate", "tokens_target", "config_target", "rows", "tool_format", "stored_target", "dequantize", "info",
)  # fmt: skip
"""The fields of specs that name code."""


class CheckFailed(PluginError, AssertionError):
    """What a plugin does wrong, a line for each check that it fails."""


@dataclass(frozen=True)
class Checked:
    """The plugin under check among what is installed, and rows that its converters can read."""

    record: PluginRecord
    registry: Registry
    rows: tuple[Mapping[str, Any], ...]

    @property
    def specs(self) -> tuple[Spec, ...]:
        return self.record.specs

    @cached_property
    def fields(self) -> list[OptionField]:
        """The options that its specs carry and, for a library plugin, those of its own that others carry."""
        own = (field.owner for field in self.registry.options.values() if _top(field.owner) == self.record.module)
        classes = dict.fromkeys((*(cls for spec in self.specs for cls in spec.option_classes), *own))
        return [field for cls in classes for field in fields_of(cls).values()]

    def code(self) -> Iterator[tuple[Spec, str, Any]]:
        """(spec, field, what it names) for everything that can be imported here."""
        for spec in self.specs:
            for field in CODE:
                if getattr(spec, field, None) and not missing_packages(spec):
                    yield spec, field, spec.load(field)


def _top(cls: type) -> str:
    return cls.__module__.partition(".")[0]
