"""What is installed, ready to be asked: kind → name → spec, key → option, and a good answer for what is not there."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import pluggy

from ftk.errors import ConfigError, PluginError, did_you_mean
from ftk.options import OptionField, Replaced, fields_of, replaced_by
from ftk.plugins import Contested, PluginRecord, contested, discover, missing_packages
from ftk.specs import KINDS, Kind, Spec
from ftk.version import __version__

KERNEL_RECORD = PluginRecord("kernel", "ftk-kernel", __version__, "ftk")


@cache
def first_party_index() -> Mapping[str, Any]:
    """The generated index of first-party names: option or ``kind:name`` → distribution.

    ``installed`` holds what the plugins of this repository declare, ``planned`` what is reserved for one to come,
    ``derived`` what other tools list and nobody sets. Only used to say which distribution is missing.
    """
    from importlib.resources import files

    text = files("ftk").joinpath("index.json").read_text(encoding="utf-8")
    index: Mapping[str, Any] = json.loads(text)
    return index


@dataclass(frozen=True, eq=False, repr=False)
class Registry:
    """The plugins that were found and everything they declare. ``kinds`` holds those that plugins have added, too."""

    records: tuple[PluginRecord, ...]
    manager: pluggy.PluginManager
    kinds: Mapping[str, Kind] = field(default_factory=lambda: KINDS)

    @classmethod
    def discover(cls, disabled: Collection[str] = ()) -> Registry:
        """The registry of everything installed, without the disabled plugins."""
        found = discover(disabled)
        return cls(found.records, found.manager, found.kinds)

    @cached_property
    def contested(self) -> Mapping[str, Contested]:
        return contested(self.records)

    @cached_property
    def _specs(self) -> Mapping[str, Mapping[str, tuple[Spec, PluginRecord]]]:
        table: dict[str, dict[str, tuple[Spec, PluginRecord]]] = {kind: {} for kind in self.kinds}
        for record in self.records:
            for spec in record.specs:
                if record.usable and spec.id not in self.contested:
                    table[spec.kind][spec.name] = (spec, record)
        return table

    def specs(self, kind: str) -> Mapping[str, Spec]:
        """The usable specs of a kind by name, in sorted order."""
        return {name: spec for name, (spec, _) in sorted(self._specs[kind].items())}

    def record_of(self, spec: Spec) -> PluginRecord:
        """The plugin that declares a spec."""
        return self._specs[spec.kind][spec.name][1]

    @cached_property
    def options(self) -> Mapping[str, OptionField]:
        """Every key that can be set, by name, without contested ones. No plugin takes over a key of the kernel's."""
        from ftk.kernel_options import KERNEL_OPTIONS

        declared = [spec for specs in self._specs.values() for spec, _ in specs.values()]
        classes = dict.fromkeys(cls for spec in declared for cls in spec.option_classes)
        table = {key: option for cls in (*classes, *KERNEL_OPTIONS) for key, option in fields_of(cls).items()}
        return {key: option for key, option in table.items() if key not in self.contested}

    @cached_property
    def replaced(self) -> Mapping[str, Replaced]:
        """Keys that existed once."""
        classes = {option.owner for option in self.options.values()}
        return {old.key: old for cls in classes for old in replaced_by(cls)}

    def owner_of(self, option: OptionField) -> PluginRecord:
        """The plugin whose module declares an option: a library plugin owns the keys that others carry for it."""
        module = option.owner.__module__.split(".")[0]
        for record in self.records:
            if record.module.split(":")[0].split(".")[0] == module:
                return record
        if module == "ftk":
            return KERNEL_RECORD
        users = [record for record in self.records for spec in record.specs if option.owner in spec.option_classes]
        return users[0] if users else KERNEL_RECORD

    def find(self, kind: str, name: str) -> Spec:
        """The spec of that name.

        Raises PluginError saying why there is none: contested, in a plugin that is disabled or in trouble, not
        installed, misspelt; or that it needs a package, with the command that installs it.
        """
        entry = self._specs[kind].get(name)
        if entry is None:
            raise PluginError(self._why_missing(kind, name))
        spec, record = entry
        if missing := missing_packages(spec):
            raise PluginError(f"{name} needs {', '.join(missing)}. {record.mend} ({record.who})")
        return spec

    def missing(self, spec: Spec) -> tuple[str, ...]:
        """The packages that a spec requires and that are not installed."""
        return missing_packages(spec)

    def default(self, kind: str) -> Spec | None:
        """The spec of a kind that a run takes when its YAML names none.

        Raises PluginError when several claim to be it.
        """
        claims = [spec for spec in self.specs(kind).values() if spec.default]
        if len(claims) > 1:
            who = ", ".join(f"{spec.name} ({self.record_of(spec).who})" for spec in claims)
            raise PluginError(f"several plugins want to be the default {kind}: {who}. Name one in the YAML")
        return claims[0] if claims else None

    def lacks(self, entry: str, what: str) -> None:
        """Raises PluginError when the index knows a first-party plugin for ``what`` that cannot be used here."""
        if whose := self.whose(entry):
            raise PluginError(f"{what} needs {whose}")

    def whose(self, entry: str) -> str:
        """``"ftk-lora, which is not installed. pip install ftk-lora"`` for an option or ``kind:name``; or its trouble.

        Empty for one that the index does not know. ``default:adapter`` is the spec that a run takes unasked.
        """
        owner = first_party_index()["installed"].get(entry)
        if not owner or any(record.distribution == owner and record.usable for record in self.records):
            return ""
        return self.trouble_with(owner) or f"{owner}, which is not installed. pip install {owner}"

    def _why_missing(self, kind: str, name: str) -> str:
        if clash := self.contested.get(f"{kind}:{name}"):
            return str(clash)
        package = f"ftk-{self.kinds[kind].prefix}{name}"
        if whose := self.whose(f"{kind}:{name}") or self.trouble_with(package):
            return f"{name} belongs to {whose}"
        if planned := first_party_index()["planned"].get(f"{kind}:{name}"):
            return f"{name} belongs to {planned}, which does not exist yet"
        installed = ", ".join(self.specs(kind)) or "none"
        guess = did_you_mean(name, self.specs(kind))
        missing = guess or f" It may come with a plugin such as {package}: pip install {package}."
        return f"{name} is not installed.{missing} Installed: {installed}{self._troubled()}"

    def trouble_with(self, distribution: str) -> str:
        """``"ftk-lora 0.1.0, which is broken: ..."`` for an installed plugin that cannot be used, else empty."""
        for record in self.records:
            if record.distribution == distribution and not record.usable:
                return f"{record.who}, which is {record.state}: {record.detail}. {record.mend}"
        return ""

    def _troubled(self) -> str:
        names = [f"{record.distribution} ({record.state})" for record in self.records if not record.usable]
        return f". Not usable: {', '.join(names)}; see ftk plugins list" if names else ""

    def unknown_option(self, key: str) -> ConfigError:
        """Why a key cannot be set, naming the distribution that it belongs to where that is known."""
        index = first_party_index()
        if clash := self.contested.get(key):
            return ConfigError(str(clash))
        if whose := self.whose(key):
            return ConfigError(f"{key}: belongs to {whose}")
        if planned := index["planned"].get(key):
            return ConfigError(f"{key}: belongs to {planned}, which does not exist yet")
        if reason := index["derived"].get(key):
            return ConfigError(f"{key}: is not set by hand: {reason}")
        guess = did_you_mean(key, self.options)
        if guess:
            closest = self.options[guess.removeprefix(" Did you mean ").removesuffix("?")]
            guess = f"{guess.removesuffix('?')} ({self.owner_of(closest).who})?"
        return ConfigError(f"{key}: unknown option.{guess or ' ftk options lists all'}{self._troubled()}")
