"""``ftk options`` and ``ftk schema``."""

from __future__ import annotations

import json
from typing import Any

import click

from ftk.options import OptionField, json_schema
from ftk.registry import Registry


@click.command()
@click.argument("key", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def options(key: str | None, as_json: bool) -> None:
    """Every key that a YAML may hold, or all about one KEY."""
    registry = Registry.discover()
    if key is not None:
        _explain(registry, key)
        return
    found = sorted(registry.options.values(), key=lambda option: (registry.owner_of(option).distribution, option.key))
    if as_json:
        click.echo(json.dumps([_as_json(registry, option) for option in found], indent=2, default=str))
        return
    from ftk.showing import shorten, show_table

    rows = [
        (option.key, registry.owner_of(option).distribution, option.type_text, shorten(option.default), option.help)
        for option in found
    ]
    show_table(("key", "owner", "type", "default", "help"), rows)


def _as_json(registry: Registry, option: OptionField) -> dict[str, Any]:
    return {
        "key": option.key,
        "owner": registry.owner_of(option).who,
        "type": option.type_text,
        "default": None if option.secret else option.default,
        "help": option.help,
    }


def _explain(registry: Registry, key: str) -> None:
    old = registry.replaced.get(key)
    if old is not None and key not in registry.options:
        click.echo(f"{key} is gone. {f'Write {old.by}.' if old.by else ''} {old.note}".strip())
        return
    option = registry.options.get(key)
    if option is None:
        raise registry.unknown_option(key)
    click.echo(f"{key}: {option.help}")
    click.echo(f"  owner    {registry.owner_of(option).who}")
    click.echo(f"  type     {option.type_text}")
    click.echo(f"  default  {'(secret)' if option.secret else option.default}")
    for name, bound in (("at least", option.minimum), ("at most", option.maximum), ("above", option.above)):
        if bound is not None:
            click.echo(f"  {name:<8} {bound}")
    for kind, what in registry.kinds.items():
        if what.selector == key:
            for name, spec in registry.specs(kind).items():
                click.echo(f"  {name:<16} {spec.summary} ({registry.record_of(spec).who})")
    users = [spec.id for kind in registry.kinds for spec in registry.specs(kind).values() if _honours(spec, option)]
    if users:
        click.echo(f"  used by  {', '.join(users)}")


def _honours(spec: Any, option: OptionField) -> bool:
    return option.owner in spec.option_classes or option.key in spec.reads


@click.command()
def schema() -> None:
    """Print one JSON Schema of everything that is installed."""
    registry = Registry.discover()
    click.echo(json.dumps(make_schema(registry), indent=2, default=str))


def make_schema(registry: Registry) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a config, from the options of every installed plugin."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for key, option in sorted(registry.options.items()):
        made = json_schema(option)
        definitions.update(made.pop("$defs", {}))
        properties[key] = made
    for kind, what in registry.kinds.items():
        if what.selector and not what.many:
            properties[what.selector]["examples"] = list(registry.specs(kind))
    for key, old in registry.replaced.items():
        properties.setdefault(key, {"deprecated": True, "description": f"Gone. Use {old.by}." if old.by else old.note})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ftk run configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }
