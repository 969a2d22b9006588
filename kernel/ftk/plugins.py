"""Finding plugins: the entry points of group ``ftk``, each loaded inside its own guard.

pluggy's own ``load_setuptools_entrypoints`` has no isolation and skips duplicates without a word, so this is ftk's
loop: distributions in sorted order; disabled and incompatible ones are decided before anything of theirs is imported;
import, registration and declarations happen inside one guard; and failure is a recorded state, never a crash.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from ftk import events, hookspecs
from ftk.errors import PluginError, did_you_mean
from ftk.events import EVENTS
from ftk.specs import KINDS, Kind, Spec
from ftk.version import __version__

if TYPE_CHECKING:
    from ftk.options import OptionField

GROUP = "ftk"
KERNEL = "ftk-kernel"

State = Literal["ok", "disabled", "needs", "incompatible", "broken", "conflict"]


@dataclass(frozen=True, eq=False)
class PluginRecord:
    """One plugin as it was found.

    state: ``ok``; ``disabled`` by the user; ``needs`` a package for some of its features; ``incompatible`` with this
    kernel; ``broken`` at import or declaration; in ``conflict`` with another distribution over a name.
    detail: why, in one line. mend: the command that mends it. specs: what it declares (kept in a conflict, unused).
    """

    name: str
    distribution: str
    version: str
    module: str
    state: State = "ok"
    detail: str = ""
    mend: str = ""
    specs: tuple[Spec, ...] = ()
    error: BaseException | None = field(default=None, compare=False, repr=False)

    @property
    def who(self) -> str:
        """``ftk-lora 0.1.0``."""
        return f"{self.distribution} {self.version}"

    @property
    def id(self) -> str:
        """The name under which pluggy knows it; unique even when two distributions share an entry point name."""
        return f"{self.distribution}:{self.name}"

    @property
    def usable(self) -> bool:
        """Whether its specs can be chosen, apart from those that need a package or that another one declares too."""
        return self.state in ("ok", "needs", "conflict")


@dataclass(frozen=True, eq=False, repr=False)
class Found:
    """What discovery returns: a record for each plugin, the pluggy manager that calls event hooks, and all kinds."""

    records: tuple[PluginRecord, ...]
    manager: pluggy.PluginManager
    kinds: Mapping[str, Kind]


def disabled_names() -> frozenset[str]:
    """The plugins that the environment disables: ``FTK_DISABLE=lora,ftk-dpo``."""
    return frozenset(name.strip() for name in os.environ.get("FTK_DISABLE", "").split(",") if name.strip())


def discover(disabled: Collection[str] = ()) -> Found:
    """Find and load every installed plugin.

    ``disabled`` holds entry point or distribution names that are not imported, beside those of ``FTK_DISABLE``.
    Raises PluginError only with ``FTK_STRICT=1``, when a plugin is broken, incompatible or in conflict.
    """
    off = disabled_names() | frozenset(disabled)
    manager = pluggy.PluginManager("ftk")
    manager.add_hookspecs(hookspecs)
    manager.add_hookspecs(events)
    records = [_import(manager, record, requires, off) for record, requires in _entry_points()]
    kinds = dict(KINDS)
    records = [_guarded(manager, record, lambda one: _open_kinds(manager, one, kinds)) for record in records]
    records = [_guarded(manager, record, lambda one: _declare(manager, one, kinds)) for record in records]
    records = _with_conflicts(records)
    for record in records:
        if not record.usable and (module := manager.get_plugin(record.id)):
            manager.unregister(module)
    if os.environ.get("FTK_STRICT") == "1":
        _refuse_trouble(records)
    return Found(tuple(records), manager, kinds)


def _refuse_trouble(records: Iterable[PluginRecord]) -> None:
    bad = [record for record in records if record.state in ("broken", "incompatible", "conflict")]
    if bad:
        said = "; ".join(f"{record.who} is {record.state}: {record.detail}" for record in bad)
        raise PluginError(f"FTK_STRICT=1: {said}")


def _entry_points() -> Iterator[tuple[PluginRecord, str]]:
    """Each entry point as an unloaded record with its distribution's requirement on the kernel.

    Distributions come in sorted order; for two installations of one distribution the first on ``sys.path`` counts.
    """
    seen: dict[str, tuple[Distribution, str]] = {}
    for distribution in distributions():
        text = distribution.read_text("entry_points.txt")
        if not text or f"[{GROUP}]" not in text:
            continue
        name = _metadata_line(distribution, "Name")
        seen.setdefault(re.sub(r"[-_.]+", "-", name).lower(), (distribution, text))
    for _, (distribution, text) in sorted(seen.items()):
        section = text.split(f"[{GROUP}]", 1)[1].split("\n[", 1)[0]
        for line in section.splitlines():
            name, equals, module = (part.strip() for part in line.partition("="))
            if equals and not name.startswith("#"):
                record = PluginRecord(
                    name, _metadata_line(distribution, "Name"), _metadata_line(distribution, "Version"), module
                )
                yield record, _kernel_requirement(distribution)


@cache
def _metadata(distribution: Distribution) -> str:
    """The header of METADATA as text; parsing it as an e-mail would cost more than importing the plugin."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    return text.split("\n\n", 1)[0]


def _metadata_line(distribution: Distribution, key: str) -> str:
    match = re.search(rf"^{key}: *(.+)$", _metadata(distribution), re.MULTILINE)
    return match[1].strip() if match else ""


def _kernel_requirement(distribution: Distribution) -> str:
    """The version specifier of ``Requires-Dist: ftk-kernel``, empty when there is none."""
    pattern = r"^Requires-Dist: *ftk[-_.]kernel(?:\[[^\]]*\])?(?![\w.-]) *\(?([^;)\n]*)"
    found = re.findall(pattern, _metadata(distribution), re.MULTILINE | re.IGNORECASE)
    return ",".join(part.strip() for part in found if part.strip())


def _meets(requirement: str) -> bool:
    """Whether this kernel satisfies a version specifier. A plain floor, the usual case, needs no import."""
    floor = re.fullmatch(r">=\s*([0-9]+(?:\.[0-9]+)*)", requirement)
    ours = re.fullmatch(r"[0-9]+(?:\.[0-9]+)*", __version__)
    if not requirement:
        return True
    if floor and ours:
        return _numbers(__version__) >= _numbers(floor[1])
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(requirement).contains(__version__, prereleases=True)
    except InvalidSpecifier:
        return False


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _import(
    manager: pluggy.PluginManager, record: PluginRecord, requirement: str, disabled: Collection[str]
) -> PluginRecord:
    """Decide whether a plugin is wanted and fits, then import and register its module."""
    if record.name in disabled or record.distribution in disabled:
        where = "FTK_DISABLE" if {record.name, record.distribution} & disabled_names() else "plugins.disable"
        return replace(record, state="disabled", detail=f"by {where}", mend=f"take {record.name} out of {where}")
    if not _meets(requirement):
        return replace(
            record,
            state="incompatible",
            detail=f"needs {KERNEL}{requirement}, this is {__version__}",
            mend=f"pip install -U {KERNEL} {record.distribution}",
        )

    def register(one: PluginRecord) -> PluginRecord:
        manager.register(resolve_name(one.module), one.id)
        return one

    return _guarded(manager, record, register)


def _guarded(
    manager: pluggy.PluginManager, record: PluginRecord, step: Callable[[PluginRecord], PluginRecord]
) -> PluginRecord:
    """A step of loading. What a plugin raises becomes its state; one that is not ``ok`` takes no more steps."""
    if record.state != "ok":
        return record
    try:
        return step(record)
    except (Exception, SystemExit) as error:
        if module := manager.get_plugin(record.id):
            manager.unregister(module)
        mend = f"pip install -U {record.distribution}"
        return replace(record, state="broken", detail=_one_line(error), mend=mend, error=error)


def _open_kinds(manager: pluggy.PluginManager, record: PluginRecord, kinds: dict[str, Kind]) -> PluginRecord:
    """Add the kinds that a plugin declares; others may then declare features of them."""
    for kind in getattr(manager.get_plugin(record.id), "ftk_kinds", tuple)():
        if not isinstance(kind, Kind):
            raise PluginError(f"yielded {type(kind).__name__} where Kind is expected")
        if kind.spec.kind in kinds or kind.hook in {one.hook for one in kinds.values()}:
            raise PluginError(f"kind {kind.spec.kind} ({kind.hook}) exists already")
        kinds[kind.spec.kind] = kind
    return record


def _declare(manager: pluggy.PluginManager, record: PluginRecord, kinds: Mapping[str, Kind]) -> PluginRecord:
    """Drain a plugin's declaration hooks."""
    specs = _declarations(manager.get_plugin(record.id), kinds)
    missing = [spec for spec in specs if missing_packages(spec)]
    if missing:
        packages = sorted({name for spec in missing for name in missing_packages(spec)})
        extra = missing[0].extra
        mend = f'pip install "{record.distribution}[{extra}]"' if extra else f"pip install {' '.join(packages)}"
        return replace(record, state="needs", detail=f"needs {', '.join(packages)}", mend=mend, specs=specs)
    return replace(record, specs=specs)


def _one_line(error: BaseException, longest: int = 300) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _declarations(module: Any, kinds: Mapping[str, Kind]) -> tuple[Spec, ...]:
    """What a plugin's declaration hooks yield. Raises whatever is wrong with it."""
    _refuse_unknown_hooks(module, kinds)
    specs: list[Spec] = []
    for kind in kinds.values():
        if implementation := getattr(module, kind.hook, None):
            for spec in implementation():
                _check_spec(spec, kind.spec)
                specs.append(spec)
    _refuse_doubles(specs)
    return tuple(specs)


def _refuse_doubles(specs: Iterable[Spec]) -> None:
    """Within one plugin the last declaration of a name or a key would win without a word."""
    seen: set[str] = set()
    classes = dict.fromkeys(cls for spec in specs for cls in spec.option_classes)
    for what in (*(spec.id for spec in specs), *(f"option {key}" for cls in classes for key in _option_keys(cls))):
        if what in seen:
            raise PluginError(f"declares {what} twice")
        seen.add(what)


def _option_keys(cls: type) -> Iterable[str]:
    keys: Iterable[str] | None = getattr(cls, "__ftk_fields__", None)
    if keys is None:
        raise PluginError(f"{cls.__qualname__} is no option class: put @ftk.options above it")
    return keys


def _refuse_unknown_hooks(module: Any, kinds: Mapping[str, Kind]) -> None:
    """pluggy keeps quiet about a misspelt hook and about one without its marker; an author would search for hours."""
    known = {kind.hook for kind in kinds.values()} | set(EVENTS) | {"ftk_kinds"}
    for name, value in vars(module).items():
        if not name.startswith("ftk_") or not callable(value):
            continue
        if name not in known and hasattr(value, "ftk_impl"):
            raise PluginError(f"unknown hook {name}.{did_you_mean(name, known)}")
        if name in known and not hasattr(value, "ftk_impl"):
            raise PluginError(f"{name} lacks its marker: put @ftk.hookimpl above it")


def _check_spec(spec: object, expected: type[Spec]) -> None:
    if not isinstance(spec, expected):
        raise PluginError(f"yielded {type(spec).__name__} where {expected.__name__} is expected")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", spec.name):
        raise PluginError(f"{spec.id}: a name has lower case letters, digits, '-', '_' and '.' only")


@cache
def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def missing_packages(spec: Spec) -> tuple[str, ...]:
    """The import names that a spec requires and that are not installed. Imports nothing."""
    return tuple(name for name in spec.requires if not _is_installed(name))


def option_fields(specs: Iterable[Spec]) -> dict[str, OptionField]:
    """Every key that the option classes of some specs own."""
    from ftk.options import fields_of

    classes = dict.fromkeys(cls for spec in specs for cls in spec.option_classes)
    return {key: field for cls in classes for key, field in fields_of(cls).items()}


@dataclass(frozen=True, eq=False, repr=False)
class Contested:
    """A spec or an option key that more than one distribution declares; nobody gets it."""

    what: str
    claimants: tuple[PluginRecord, ...]

    def __str__(self) -> str:
        who = " and ".join(record.who for record in self.claimants)
        return f"{self.what} is declared by both {who}. Uninstall one"


def contested(records: Iterable[PluginRecord]) -> dict[str, Contested]:
    """Every ``kind:name`` and every option key that two distributions declare."""
    claims: dict[str, dict[str, PluginRecord]] = {}
    owners: dict[str, tuple[type, PluginRecord]] = {}
    for record in records:
        for spec in record.specs:
            claims.setdefault(spec.id, {})[record.distribution] = record
        for key, option in option_fields(record.specs).items():
            owner, first = owners.setdefault(key, (option.owner, record))
            if owner is not option.owner:
                claims.setdefault(key, {}).update({first.distribution: first, record.distribution: record})
    return {
        what: Contested(what.replace(":", " ") if ":" in what else f"option {what}", tuple(who.values()))
        for what, who in claims.items()
        if len(who) > 1
    }


def _with_conflicts(records: list[PluginRecord]) -> list[PluginRecord]:
    clashes = contested(records)
    return [_in_conflict(record, clashes.values()) for record in records]


def _in_conflict(record: PluginRecord, clashes: Iterable[Contested]) -> PluginRecord:
    for clash in clashes:
        if record in clash.claimants:
            mend = f"pip uninstall {record.distribution}"
            return replace(record, state="conflict", detail=str(clash).removesuffix(". Uninstall one"), mend=mend)
    return record
