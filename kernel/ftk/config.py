"""Reading a config: one flat YAML mapping, each key with the line it stands on, and overrides from the command line.

Scalars follow YAML 1.2: ``2e-5`` is a float, and only ``true`` and ``false`` are booleans (``no`` stays a word, so that
``save_strategy: no`` means what it says).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ftk.errors import ConfigError

if TYPE_CHECKING:
    import yaml


@dataclass(frozen=True)
class Setting:
    """A value and where it came from: ``file:line``, ``command line`` or ``default``."""

    value: Any
    where: str


Settings = Mapping[str, Setting]

SCALARS = {
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": ("~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": ("[-+]?[0-9]+(?:_[0-9]+)*|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "merge": ("<<", "<"),
}
"""Tag → the pattern of its scalars and the characters that they begin with (YAML 1.2, core schema)."""

_loader_class: type[yaml.SafeLoader] | None = None


def _loader() -> type[yaml.SafeLoader]:
    """A safe YAML loader with the scalars of YAML 1.2, made once."""
    global _loader_class
    if _loader_class is None:
        import yaml

        class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
            yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

        for tag, (pattern, first) in SCALARS.items():
            Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first))
        Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
        _loader_class = Loader
    return _loader_class


def _construct_int(loader: Any, node: Any) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 16) if text.lower().startswith("0x") else int(text)


def parse_value(text: str) -> Any:
    """A command line value: YAML, so ``1e-5`` is a number and ``[a, b]`` a list; text where that does not parse."""
    import yaml

    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError:
        return text


def read_yaml(path: str | Path) -> dict[str, Setting]:
    """The settings of a YAML (or JSON) file, in its order.

    Raises ConfigError, with line and column where there is one, when the file is missing, does not parse, is no
    mapping, or gives a key twice.
    """
    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except IsADirectoryError as cause:
        raise ConfigError(f"{path}: is a folder. Give a YAML file") from cause
    except OSError as cause:
        raise ConfigError(f"{path}: cannot be read: {cause.strerror or cause}{_files_nearby(path)}") from cause
    except UnicodeDecodeError as cause:
        raise ConfigError(f"{path}: is not UTF-8 text: {cause.reason} at byte {cause.start}") from cause
    loader = _loader()(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(
                f"{path}:{root.start_mark.line + 1}: expected `key: value` lines, found {_node_name(root)}"
            )
        loader.flatten_mapping(root)
        return _settings(loader, root, path)
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{at}: does not parse: {cause.problem or cause.context}") from cause
    except yaml.YAMLError as cause:
        raise ConfigError(f"{path}: does not parse: {' '.join(str(cause).split())}") from cause
    finally:
        loader.dispose()


def _settings(loader: Any, root: yaml.MappingNode, path: Path) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for key_node, value_node in root.value:
        line = key_node.start_mark.line + 1
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise ConfigError(f"{path}:{line}: {key!r}: a key must be a word")
        if key in found:
            raise ConfigError(f"{path}:{line}: {key}: given twice, first at {found[key].where}. Remove one")
        found[key] = Setting(loader.construct_object(value_node, deep=True), f"{path}:{line}")
    return found


def _node_name(node: Any) -> str:
    return {"sequence": "a list", "scalar": "plain text"}.get(node.id, str(node.id))


def _files_nearby(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else None
    names = [file.name for file in folder.glob("*.y*ml")] if folder else []
    from ftk.errors import did_you_mean

    return "." + did_you_mean(path.name, names) if did_you_mean(path.name, names) else ""


def parse_overrides(words: Iterable[str]) -> dict[str, Setting]:
    """Settings from ``--key value``, ``--key=value``, ``key=value`` and a bare ``--flag`` (true).

    A dotted key (``--gradient_checkpointing_kwargs.use_reentrant false``) sets one entry of a nested mapping.
    Raises ConfigError for a word that is none of these.
    """
    found: dict[str, Setting] = {}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        name, equals, text = word.partition("=")
        if word.startswith("--"):
            name = name[2:]
            if not equals:
                text = queue.pop(0) if queue and not queue[0].startswith("--") else "true"
        elif not equals:
            raise ConfigError(f"command line: {word}: expected --key value or key=value")
        key = name.replace("-", "_")
        if not re.fullmatch(r"[A-Za-z_][\w.]*", key):
            raise ConfigError(f"command line: {word}: {name!r} is no key")
        found[key] = Setting(parse_value(text), f"command line: --{key}")
    return found


def merge(settings: Settings, overrides: Settings) -> dict[str, Setting]:
    """The settings with the overrides put over them; dotted overrides go into the mapping they name."""
    merged = dict(settings)
    for key, setting in overrides.items():
        head, *path = key.split(".")
        if not path:
            merged[head] = setting
            continue
        old = merged.get(head)
        base = dict(old.value) if old and isinstance(old.value, Mapping) else {}
        merged[head] = Setting(_put(base, path, setting.value), setting.where)
    return merged


def _put(mapping: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    head, *rest = path
    if rest:
        inner = mapping.get(head)
        value = _put(dict(inner) if isinstance(inner, Mapping) else {}, rest, value)
    return {**mapping, head: value}
