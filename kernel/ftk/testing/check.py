"""The contract that every plugin keeps, ours and others'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ftk.errors import PluginError, did_you_mean
from ftk.plugins import PluginRecord
from ftk.registry import Registry
from ftk.testing.behaves import BEHAVIOUR_CHECKS
from ftk.testing.checked import Checked, CheckFailed
from ftk.testing.declares import DECLARATION_CHECKS


def check_plugin(name: str, *, rows: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """Check an installed plugin, given by its entry point or its distribution, and return what holds, a line each.

    rows: rows that its converters can read, when they read none of the usual layouts.
    Raises CheckFailed with a line for each thing that is wrong.
    """
    registry = Registry.discover()
    found = [record for record in registry.records if name in (record.distribution, record.name)]
    if not found:
        guess = did_you_mean(name, [record.name for record in registry.records]) or " ftk plugins list shows all"
        raise CheckFailed(f"{name}: no plugin of that name is installed.{guess}")
    held: list[str] = []
    failed: list[str] = []
    for record in found:
        try:
            held.append(_state(record))
        except CheckFailed as error:
            failed.append(f"{record.who}: {error}")
            continue
        checked = Checked(record, registry, tuple(rows))
        for check in (*DECLARATION_CHECKS, *BEHAVIOUR_CHECKS):
            try:
                held.append(check(checked))
            except PluginError as error:  # CheckFailed, or a target that cannot be imported
                failed.append(f"{record.who}: {error}")
    if failed:
        raise CheckFailed("\n".join(dict.fromkeys(failed)))
    return [line for line in held if line]


def _state(record: PluginRecord) -> str:
    ids = [spec.id for spec in record.specs]
    if record.state not in ("ok", "needs"):
        raise CheckFailed(f"is {record.state}: {record.detail}. {record.mend}") from record.error
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise CheckFailed(f"declares {', '.join(twice)} twice")
    return f"{record.who} is {record.detail or record.state}, provides {', '.join(ids) or 'no feature of its own'}"
