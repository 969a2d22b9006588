"""``ftk plugins new KIND NAME``: a small plugin that works, with its packaging and tests, to be changed at will.

What every plugin has stands in ``scaffolds/every``, the rest in ``scaffolds/KIND.txt``: a head (``summary``, ``needs``
and ``extra`` requirements) and sections ``=== FILE``; ``test`` becomes the test module and ``use`` the YAML of the
README. ``{{name}}``, ``{{key}}``, ``{{module}}``, ``{{distribution}}`` and ``{{Class}}`` are filled in.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

from ftk.errors import ConfigError, did_you_mean
from ftk.registry import first_party_index
from ftk.specs import KINDS
from ftk.version import __version__


def new_plugin(kind: str, name: str, folder: Path) -> Path:
    """Write a plugin package of a kind into ``folder`` and return its own folder, ``folder/ftk-NAME``.

    Raises ConfigError for an unknown kind, a name that no plugin can have, a name that is taken, a folder that exists.
    """
    if kind not in KINDS:
        guess = did_you_mean(kind, KINDS) or f" Kinds: {', '.join(KINDS)}"
        raise ConfigError(f"{kind}: no such kind.{guess}")
    _check_name(kind, name)
    suffix = f"{KINDS[kind].prefix}{name}"
    words = {
        "name": name,
        "key": name.replace("-", "_"),
        "suffix": suffix,
        "distribution": f"ftk-{suffix}",
        "module": f"ftk_{suffix.replace('-', '_')}",
        "Class": "".join(part.capitalize() for part in name.split("-")),
    }
    target = folder / words["distribution"]
    if target.exists():
        raise ConfigError(f"{target}: exists already. Choose another name or folder")
    for path, text in _files(kind, words).items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text(text, encoding="utf-8")
    return target


def _check_name(kind: str, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 40:
        raise ConfigError(f"{name}: a name is lower case letters and digits, with single dashes between: my-{kind}")
    if name.startswith("ftk-"):
        raise ConfigError(f"{name}: leave the ftk- out: {name.removeprefix('ftk-')}")
    taken = first_party_index()["installed"]
    distribution = f"ftk-{KINDS[kind].prefix}{name}"
    if owner := taken.get(f"{kind}:{name}") or (distribution in {*taken.values(), "ftk-kernel"} and distribution):
        raise ConfigError(f"{name}: taken by {owner}. Two plugins of one name exclude each other; choose another")


def _files(kind: str, words: dict[str, str]) -> dict[str, str]:
    """Path → text of everything that a package of this kind holds."""
    text = _text(kind)
    for word, value in words.items():
        text = text.replace(f"{{{{{word}}}}}", value)
    head, *sections = re.split(r"^=== (.+)\n", text, flags=re.MULTILINE)
    facts = dict(line.split(": ", 1) for line in head.splitlines())
    parts = dict(zip(sections[::2], sections[1::2], strict=True))
    floor = ".".join(__version__.split(".")[:2])
    requirements = [f"ftk-kernel>={floor}", *filter(None, facts.get("needs", "").split(", "))]
    module = words["module"]
    words = {
        **words,
        "summary": facts["summary"],
        "use": parts.pop("use").strip(),
        "dependencies": ", ".join(f'"{one}"' for one in requirements),
        "backend": ", ".join(f'"{one}"' for one in facts.get("extra", "").split(", ")),
    }
    pyproject = _text("every/pyproject") + (_text("every/backend") if "extra" in facts else "")
    return {
        "pyproject.toml": Template(pyproject).substitute(words),
        "README.md": Template(_text("every/README")).substitute(words),
        f"test_{module.removeprefix('ftk_')}.py": parts.pop("test"),
        **parts,
    }


def _text(name: str) -> str:
    return files("ftk").joinpath("scaffolds", f"{name}.txt").read_text(encoding="utf-8")
