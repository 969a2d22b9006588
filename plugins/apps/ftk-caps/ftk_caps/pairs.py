"""Two kinds of features held against each other, by the same conditions that refuse a run's plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ftk.plan import Conditions
from ftk.registry import Registry
from ftk.specs import Spec


@dataclass(frozen=True)
class Choice:
    """One way to fill a kind.

    label: how it is shown. specs: what is chosen with it. values: the keys that choose it, as a YAML would set them;
    True for a switch whose value does not matter here.
    """

    label: str
    specs: tuple[Spec, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether two choices go together. refusals: why not. lacks: packages that are missing. gpu: needs one."""

    refusals: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    gpu: bool = False

    @property
    def word(self) -> str:
        """``yes``, ``no``, ``gpu`` or ``lacks``, the first that stops a run here."""
        return "no" if self.refusals else "lacks" if self.lacks else "gpu" if self.gpu else "yes"


def choices(registry: Registry, kind: str) -> Iterator[Choice]:
    """Every way to fill a kind: its features, each with its bits, and with each feature of the kinds inside of it.

    A kind that no run has to fill can also be left out.
    """
    declared = registry.kinds[kind]
    if not declared.required:
        yield Choice("none")
    for name, spec in registry.specs(kind).items():
        values = {declared.selector: name} if declared.selector else {}
        if spec.switch:
            values[spec.switch] = True
        if declared.switch:  # quantisation: a number chooses it, or files that are quantised already
            bits = getattr(spec, "bits", ())
            for number in bits:
                yield Choice(f"{name} {number}", (spec,), {**values, declared.switch: number})
            if not bits:
                yield Choice(f"{name} files", (spec,))
        else:
            yield Choice(name, (spec,), values)
        for inner, one in registry.kinds.items():
            if one.within == spec.id:
                for variant in registry.specs(inner).values():
                    switched = {variant.switch: True} if variant.switch else {}
                    yield Choice(f"{name} + {variant.name}", (spec, variant), {**values, **switched})


def verdict(registry: Registry, *together: Choice) -> Verdict:
    """What the specs say of some choices in one run."""
    specs = [spec for choice in together for spec in choice.specs]
    chosen: dict[str, tuple[Spec, ...]] = {}
    for spec in specs:
        chosen[spec.kind] = (*chosen.get(spec.kind, ()), spec)
    values = {key: value for choice in together for key, value in choice.values.items()}

    def value(key: str) -> Any:
        option = registry.options.get(key)
        return values.get(key, option.default if option else None)

    refusals = tuple(said for _, said in Conditions(registry, chosen, value).refusals({}, ()))
    lacks = tuple(dict.fromkeys(name for spec in specs for name in registry.missing(spec)))
    return Verdict(refusals, lacks, any(getattr(spec, "gpu", False) for spec in specs))
