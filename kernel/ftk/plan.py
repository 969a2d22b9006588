"""The plan: which feature of each kind a run takes, every option with its origin, and what the user should know.

Making a plan imports no target and reads no data; it is what ``ftk run --dry-run`` prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from ftk.config import Setting, Settings, parse_value
from ftk.entries import EntryReader, PlannedDataset
from ftk.errors import ConfigError, FtkError, PluginError, raise_all
from ftk.kernel_options import KERNEL_OPTIONS
from ftk.options import OptionField, build, check_value, fields_of, is_on
from ftk.plugins import PluginRecord
from ftk.registry import Registry
from ftk.specs import KINDS, Command, Kind, ModelLoader, Quantizer, Spec, Trainer

T = TypeVar("T")
NOTHING_TO_DO = "only opens models whose files are quantised already. Take quantization_bit out"


@dataclass(frozen=True)
class Plan:
    """A resolved run.

    chosen: kind → the specs that this run takes, in the order of the YAML where there are several.
    given: the checked values of keys that the user set, with their origin; options: option class → its instance.
    datasets: split (``train``, ``eval``) → its data sets. notes: what the user should know, a line each.
    """

    registry: Registry
    config: str
    chosen: Mapping[str, tuple[Spec, ...]]
    given: Settings
    options: Mapping[type, Any]
    datasets: Mapping[str, tuple[PlannedDataset, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def one(self, kind: str) -> Spec | None:
        """The chosen spec of a kind that takes at most one."""
        specs = self.chosen.get(kind, ())
        return specs[0] if specs else None

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """Every option that takes part in this run, with defaults."""
        return {key: getattr(made, key) for cls, made in self.options.items() for key in fields_of(cls)}

    def value(self, key: str) -> Any:
        """One option by name, for a feature that lists the key under ``reads``.

        A key that takes no part in the run answers with its default; one that no plugin declares raises KeyError.
        """
        if key in self.values:
            return self.values[key]
        return self.given[key].value if key in self.given else self.registry.options[key].default

    def where(self, key: str) -> str:
        """How an error about the value of a key begins: ``run.yaml:4: lora_target: q_projj``."""
        where = self.given[key].where if key in self.given else self.config
        value = self.shown(key)
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        return f"{where}: {text}" if where.endswith(f"--{key}") else f"{where}: {key}: {text}"

    @cached_property
    def records(self) -> tuple[PluginRecord, ...]:
        """The plugins that take part, library plugins included, in sorted order."""
        specs = [spec for specs in self.chosen.values() for spec in specs]
        records = {self.registry.record_of(spec).id: self.registry.record_of(spec) for spec in specs}
        carried = dict.fromkeys(cls for spec in specs for cls in spec.option_classes)
        for cls in (*KERNEL_OPTIONS, *carried):  # not those that stand ready for another model
            for option in fields_of(cls).values():
                owner = self.registry.owner_of(option)
                records[owner.id] = owner
        return tuple(record for _, record in sorted(records.items()))

    def taking(self, spec: Spec) -> Plan:
        """This plan with a spec that the model has chosen. Raises ConfigError for what does not go together with it."""
        plan = replace(self, chosen={**self.chosen, spec.kind: (spec,)})
        known = plan.registry.options
        conditions = Conditions(plan.registry, plan.chosen, lambda key: plan.value(key) if key in known else None)
        raise_all(
            ConfigError(f"{plan.given[what].where if what in plan.given else plan.config}: {said}")
            for what, said in conditions.refusals(plan.given, plan.options)
        )
        return plan

    def shown(self, key: str) -> Any:
        """The value of a key with secrets masked, for whatever is shown or saved."""
        value = self.value(key)
        return "***" if self.registry.options[key].secret and value else value


@dataclass(frozen=True)
class Conditions:
    """What specs and options say of each other, held against what is chosen and against ``value`` of a key."""

    registry: Registry
    chosen: Mapping[str, tuple[Spec, ...]]
    value: Callable[[str], Any]

    def met(self, condition: str) -> bool:
        """``kind:name`` or anything of ``kind`` is chosen, ``key`` is on, ``key=value`` or ``key>number`` holds."""
        kind, colon, name = condition.partition(":")
        if condition in self.registry.kinds:
            return bool(self.chosen.get(condition))
        if colon:
            return any(spec.name == name for spec in self.chosen.get(kind, ()))
        key, more, number = condition.partition(">")
        if more:
            value = self.value(key) or 0
            return float(len(value) if isinstance(value, tuple | list) else value) > float(number)
        key, equals, text = condition.partition("=")
        return bool(self.value(key) == parse_value(text)) if equals else is_on(self.value(key))

    def refusals(self, given: Settings, options: Iterable[type]) -> Iterator[tuple[str, str]]:
        """(spec or key, what is wrong) for every chosen spec and every option that was set."""
        for specs in self.chosen.values():
            for spec in specs:
                yield from self._held(spec.id, spec)
        for key, setting in given.items():
            option = self.registry.options[key]
            if option.owner in options and is_on(setting.value) and setting.value != option.default:
                yield from self._held(key, option)

    def _held(self, what: str, declared: Spec | OptionField) -> Iterator[tuple[str, str]]:
        for condition in declared.excludes:
            if self.met(condition):
                yield what, f"{what} and {condition} exclude each other. Take one out"
        for condition in declared.needs:
            if not self.met(condition):
                yield what, f"{what} needs {condition}"


def make_plan(
    settings: Settings, registry: Registry, *, config: str = "command line", command: Command | None = None
) -> Plan:
    """Resolve settings into a plan, for ``ftk run`` or for another command that uses some kinds.

    Raises ConfigError, PluginError, or Problems with all that is wrong: unknown keys, wrong values, missing plugins,
    refused combinations, data sets that are nowhere.
    """
    planner = _Planner(registry, dict(settings), config)
    planner.translate()
    planner.check()
    planner.choose(command)
    raise_all(planner.errors)
    planner.read_entries()
    planner.build_options()
    planner.refuse_combinations()
    raise_all(planner.errors)
    if command is None:
        planner.note_without_effect()
    return planner.plan()


class _Planner:
    """The steps of :func:`make_plan`; collects errors so that one start shows them all."""

    def __init__(self, registry: Registry, settings: dict[str, Setting], config: str) -> None:
        self.registry = registry
        self.settings = settings
        self.config = config
        self.given: dict[str, Setting] = {}
        self.chosen: dict[str, tuple[Spec, ...]] = {}
        self.uses: tuple[str, ...] = ()
        self.options: dict[type, Any] = {}
        self.datasets: dict[str, tuple[PlannedDataset, ...]] = {}
        self.notes: list[str] = []
        self.errors: list[FtkError] = []

    def at(self, key: str, message: str, kind: type[FtkError] = ConfigError) -> FtkError:
        """An error that begins with where the key was set."""
        where = self.settings[key].where if key in self.settings else self.config
        return kind(f"{where}: {key}: {message}" if not where.endswith(f"--{key}") else f"{where}: {message}")

    def translate(self) -> None:
        """Put today's keys in the place of those that are gone, and tell the user."""
        for key, old in self.registry.replaced.items():
            if key not in self.settings:
                continue
            setting = self.settings.pop(key)
            value = old.values.get(setting.value, setting.value)
            if old.by is None or value is None:
                self.notes.append(f"{setting.where}: {key}: {old.note or 'has no effect any more'}")
            elif old.by in self.settings:
                self.notes.append(f"{setting.where}: {key}: left out, {old.by} is set")
            else:
                self.settings[old.by] = Setting(value, setting.where)
                self.notes.append(
                    f"{setting.where}: {key}: taken as {old.by}: {value}{'. ' + old.note if old.note else ''}"
                )

    def check(self) -> None:
        """Check every key that was set, whether this run needs it or not."""
        for key, setting in self.settings.items():
            option = self.registry.options.get(key)
            if option is None:
                error = self.registry.unknown_option(key)
                where = setting.where.removesuffix(f": --{key}")
                self.errors.append(type(error)(f"{where}: {error}"))
                continue
            if setting.value is None and option.default is not None:
                continue  # `key:` with nothing behind it leaves the default, as LLaMA-Factory's examples write it
            try:
                self.given[key] = Setting(check_value(option, setting.value), setting.where)
            except ValueError as cause:
                self.errors.append(self.at(key, f"{cause} ({option.type_text}, {self.registry.owner_of(option).who})"))

    def effective(self, key: str) -> Any:
        """The value of a key, its default when it was not set, None when nobody declares it."""
        if key in self.given:
            return self.given[key].value
        option = self.registry.options.get(key)
        return option.default if option else None

    def choose(self, command: Command | None) -> None:
        """Choose the specs of every kind that the trainer or the command uses."""
        if command is not None:
            self.chosen["command"] = (command,)
            self.uses = command.uses
        else:
            self.choose_kind("trainer", KINDS["trainer"])
            trainer = cast("Trainer", self.chosen["trainer"][0]) if self.chosen.get("trainer") else Trainer("none")
            sometimes = (kind for kind, condition in trainer.uses_when.items() if self.conditions.met(condition))
            self.uses = (*trainer.uses, *sometimes)
        for name, kind in self.registry.kinds.items():
            if self.conditions.met(kind.within) if kind.within else name in self.uses:
                self.choose_kind(name, kind)
            elif kind.within and command is None:
                self.refuse_outside(name, kind.within)
        if "model_loader" in self.uses and not self.effective("model_name_or_path"):
            self.errors.append(self.at("model_name_or_path", "not set. Give a folder or the name of a model"))
        if "trainer" in self.chosen and not self.effective("output_dir"):
            folder = f"saves/{Path(self.config).stem}"
            self.errors.append(self.at("output_dir", f"not set. Say where the results go, for instance {folder}"))

    def choose_kind(self, name: str, kind: Kind) -> None:
        try:
            self.chosen[name] = tuple(self.candidates(name, kind))
        except PluginError as error:
            key = kind.selector if kind.selector and kind.selector in self.settings else ""
            self.errors.append(self.at(key, str(error), PluginError) if key else PluginError(f"{self.config}: {error}"))
            return
        selector = kind.selector or ""
        asked = kind.switch and is_on(self.effective(kind.switch)) and not self.effective(selector)
        # a command that opens a model without adapters needs nobody who loads them
        plain = name == "adapter" and "command" in self.chosen and not self.effective("adapter_name_or_path")
        if ((kind.required and not plain) or asked) and not self.chosen[name] and selector:
            installed = ", ".join(self.registry.specs(name)) or "none"
            self.errors.append(self.at(selector, f"not set, and {self.no_default(name)}. Installed: {installed}"))

    def no_default(self, kind: str) -> str:
        """Why a kind has no default spec here."""
        whose = self.registry.whose(f"default:{kind}")
        return f"the default {kind} belongs to {whose}" if whose else f"no {kind} is the default"

    def refuse_outside(self, name: str, within: str) -> None:
        """A feature that the user switches on has no place in this run."""
        for key in (str(spec.switch) for spec in self.registry.specs(name).values()):
            if key in self.given and is_on(self.given[key].value):
                self.errors.append(self.at(key, f"needs {within}"))

    def candidates(self, name: str, kind: Kind) -> Iterable[Spec]:
        """The specs that the settings choose: by switch, by name, by scheme, or the default one."""
        if kind.switch and not is_on(self.effective(kind.switch)):
            return []
        if kind.selector is None:
            return self.switched_on(name, kind)
        wanted = self.effective(kind.selector)
        if kind.many:
            named = [one for one in wanted if one != "none" and not (kind.own_code and ":" in one)]
            known = self.registry.specs(name).values()
            named += [spec.name for spec in known if is_on(self.effective(str(spec.switch)))]
            return [self.registry.find(name, one) for one in dict.fromkeys(named)]
        if not wanted:
            specs = self.registry.specs(name).values()
            default = next((one for one in specs if one.switch and is_on(self.effective(one.switch))), None)
            default = default or (self.by_scheme() if name == "model_loader" else None)
            default = default or (self.registry.default(name) if kind.required or kind.switch else None)
            wanted = default.name if default else None
        if not wanted:
            return []
        spec = self.registry.find(name, wanted)
        return [spec, *self.behind(spec)]

    def behind(self, spec: Spec) -> Iterable[Spec]:
        """The loader that loads what ``spec`` only brings to a folder; its options take part in the run, too."""
        if not isinstance(spec, ModelLoader) or spec.target:
            return []
        default = self.registry.default(spec.kind)
        if default is None or not default.target:
            raise PluginError(f"{spec.name} only brings files, and {self.no_default(spec.kind)}")
        return [default]

    def switched_on(self, name: str, kind: Kind) -> Iterable[Spec]:
        order = {key: place for place, key in enumerate(self.settings)}
        found = [
            spec
            for spec in self.registry.specs(name).values()
            if spec.default or (spec.switch and is_on(self.effective(spec.switch)))
        ]
        found.sort(key=lambda spec: order.get(str(spec.switch), -1))
        if len(found) > 1 and not kind.many:
            switches = " and ".join(str(spec.switch) for spec in found)
            raise PluginError(f"{switches} exclude each other: a run takes one {name}")
        return [self.registry.find(name, spec.name) for spec in found]

    def by_scheme(self) -> Spec | None:
        scheme, mark, _ = str(self.effective("model_name_or_path") or "").partition("://")
        if not mark:
            return None
        for spec in self.registry.specs("model_loader").values():
            if scheme in cast("ModelLoader", spec).schemes:
                return spec
        raise PluginError(f"model_name_or_path: no installed model loader answers for {scheme}://")

    def read_entries(self) -> None:
        """Resolve the data sets, and add their sources and converters to what is chosen."""
        if "source" not in self.uses:
            return
        reader = EntryReader(self.registry, self.effective("dataset_dir"), Path(self.config).parent, self.effective)
        for split, key in (("train", "dataset"), ("eval", "eval_dataset")):
            try:
                self.datasets[split] = tuple(reader.plan(self.effective(key) or []))
            except FtkError as error:
                self.errors.append(self.at(key, str(error), type(error)))
        if not self.errors and not any(self.datasets.values()):
            self.errors.append(self.at("dataset", "not set. Give names of dataset_info.json, paths, or inline entries"))
        planned = [one for split in self.datasets.values() for one in split]
        self.chosen["source"] = tuple(dict.fromkeys(one.source for one in planned))
        self.chosen["converter"] = tuple(dict.fromkeys(one.converter for one in planned))

    def build_options(self) -> None:
        specs = [spec for specs in self.chosen.values() for spec in specs]
        for name, kind in self.registry.kinds.items():
            if kind.by_model and name in self.chosen:
                specs += self.registry.specs(name).values()
        classes = dict.fromkeys([*KERNEL_OPTIONS, *(cls for spec in specs for cls in spec.option_classes)])
        values = {key: setting.value for key, setting in self.given.items()}
        for cls in classes:
            try:
                self.options[cls] = build(cls, values)
            except ValueError as cause:
                self.errors.append(ConfigError(f"{self.config}: {cause}"))

    def refuse_combinations(self) -> None:
        """Hold every chosen spec and every option that was set against its ``excludes`` and ``needs``."""
        bits = self.effective("quantization_bit")
        for quantizer in cast("tuple[Quantizer, ...]", self.chosen.get("quantizer", ())):
            if bits not in quantizer.bits:
                can = ", ".join(map(str, quantizer.bits))
                why = f"{quantizer.name} can do {can}" if can else f"{quantizer.name} {NOTHING_TO_DO}"
                self.errors.append(self.at("quantization_bit", f"{bits}: {why}"))
        for what, said in self.conditions.refusals(self.given, self.options):
            where = self.settings[what].where if what in self.settings else self.config
            self.errors.append(ConfigError(f"{where}: {said}"))

    @property
    def conditions(self) -> Conditions:
        return Conditions(self.registry, self.chosen, self.effective)

    def note_without_effect(self) -> None:
        read = {key for specs in self.chosen.values() for spec in specs for key in spec.reads}
        switches = {spec.switch for specs in self.chosen.values() for spec in specs}
        selectors = {kind.selector: name for name, kind in self.registry.kinds.items() if kind.selector}
        within = {name for name, kind in self.registry.kinds.items() if kind.within and name in self.chosen}
        for key, setting in self.given.items():
            option: OptionField = self.registry.options[key]
            active = option.owner in self.options and selectors.get(key, "trainer") in (*self.uses, *within, "trainer")
            if not active and key not in read | switches and setting.value != option.default:
                who = self.registry.owner_of(option).who
                self.notes.append(f"{setting.where}: {key}: has no effect in this run (it belongs to {who})")

    def plan(self) -> Plan:
        return Plan(self.registry, self.config, self.chosen, self.given, self.options, self.datasets, tuple(self.notes))
