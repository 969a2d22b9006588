"""Write ``kernel/ftk/index.json``: which first-party distribution owns which option and which ``kind:name``.

    python tests/contract/make_index.py

``installed`` is taken from the plugins of this tree, which must be installed, but for those of ``contrib/``;
``default:kind`` in it is the spec that is taken where a YAML names none.
``planned`` (names reserved for plugins to come) and ``derived`` (names of LLaMA-Factory that nobody sets) are kept by
hand in the same file; a planned name that a plugin now owns is dropped. ``test_index.py`` fails when the file is not
what this script would write.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from contributed import contributed
from ftk.options import fields_of, replaced_by
from ftk.registry import Registry

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "kernel" / "ftk" / "index.json"


def first_party() -> set[str]:
    """The distributions of this tree."""
    projects = (*ROOT.glob("plugins/*/*/pyproject.toml"), *ROOT.glob("contrib/*/pyproject.toml"))
    return {tomllib.loads(path.read_text())["project"]["name"] for path in projects}


def make_index() -> dict[str, dict[str, str]]:
    """The index as it should be."""
    with contributed():
        return _index(Registry.discover())


def _index(registry: Registry) -> dict[str, dict[str, str]]:
    ours = first_party()
    installed: dict[str, str] = {}
    for kind in registry.kinds:
        for name, spec in registry.specs(kind).items():
            owner = registry.record_of(spec).distribution
            if owner not in ours:
                continue
            installed[f"{kind}:{name}"] = owner
            if spec.default and registry.kinds[kind].selector:
                installed[f"default:{kind}"] = owner
            if field := getattr(spec, "field", ""):
                installed[f"source-field:{field}"] = owner
            installed |= {f"stored:{method}": owner for method in getattr(spec, "methods", ())}
            for cls in spec.option_classes:
                owners = {key: registry.owner_of(option).distribution for key, option in fields_of(cls).items()}
                installed |= owners | {old.key: next(iter(owners.values())) for old in replaced_by(cls)}
    old = json.loads(INDEX.read_text(encoding="utf-8"))
    planned = {name: owner for name, owner in old["planned"].items() if name not in installed | registry.options}
    return {
        "installed": dict(sorted(installed.items())),
        "planned": dict(sorted(planned.items())),
        "derived": old["derived"],
    }


def as_text(index: dict[str, dict[str, str]]) -> str:
    return json.dumps(index, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    INDEX.write_text(as_text(make_index()), encoding="utf-8")
