"""Checks of what a plugin declares: its state, imports, specs, targets and options.

Each check takes a plugin and returns one line saying what holds, or an empty one when there was nothing to check. It
raises CheckFailed with one line saying what is wrong and how it should be.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ftk.errors import did_you_mean
from ftk.events import EVENTS
from ftk.options import build, check_value, json_schema, resolved_type
from ftk.plugins import missing_packages
from ftk.registry import first_party_index
from ftk.specs import ChatTemplate, Spec
from ftk.testing.checked import CODE, Checked, CheckFailed

FORBIDDEN = (
    "accelerate", "bitsandbytes", "datasets", "jax", "numpy", "pandas", "peft", "pyarrow", "tensorflow", "tokenizers",
    "torch", "transformers", "trl", "vllm",
)  # fmt: skip
"""Packages that cost seconds, which a plugin may not import before a run uses it."""

WORDS: Mapping[str, tuple[str, ...]] = {
    "examples": ("text", "chat", "pairs", "feedback", "prompts"),
    "saves": ("adapter", "model"),
}
"""Field → the words that it may hold."""
GIVEN: Mapping[str, tuple[str, ...]] = {
    "source": ("field",), "quantizer": ("bits", "methods"), "media": ("model_types",), "optimizer": ("switch",),
    "model_patch": ("switch", "default"),
}  # fmt: skip
"""Kind → the fields without any of which no YAML can reach it."""
CALLS: Mapping[tuple[str, str], int] = {
    ("model_loader", "locate"): 2, ("quantizer", "target"): 1,
    ("quantizer", "stored_target"): 2, ("model_patch", "target"): 2,
    ("model_patch", "config_target"): 2, ("model_patch", "tokens_target"): 2, ("adapter", "target"): 3,
    ("optimizer", "target"): 2, ("source", "target"): 2, ("source", "info"): 2,
    ("converter", "target"): 2, ("template", "target"): 1, ("trainer", "target"): 1, ("trainer", "rows"): 2,
    ("media", "target"): 1, ("engine", "target"): 2, ("tracker", "target"): 1, ("launcher", "target"): 2,
}  # fmt: skip
"""(kind, field) → how many positional arguments the run calls it with."""
OFFERS: Mapping[str, tuple[str, ...]] = {
    "model_loader": ("load_tokenizer", "load_model"),
}
"""Kind → what its target must have."""

DECLARE = """
import json, sys, time
from pkgutil import resolve_name
from ftk.specs import KINDS
started = time.perf_counter()
module = resolve_name(sys.argv[1])
for kind in KINDS.values():
    list(getattr(module, kind.hook, tuple)())
print(json.dumps([time.perf_counter() - started, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def _declares_quickly(plugin: Checked) -> str:
    """In an interpreter of its own, where nothing else has imported what must not be imported."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", DECLARE, plugin.record.module],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise CheckFailed(f"cannot be imported on its own: {done.stderr.strip().splitlines()[-1]}")
    seconds, modules = json.loads(done.stdout.splitlines()[-1])
    if heavy := sorted(set(modules) & set(FORBIDDEN)):
        raise CheckFailed(
            f'importing it imports {", ".join(heavy)}. Name the code as target="module:attr" in a module of its own'
        )
    return f"declares in {seconds * 1000:.0f} ms and imports no package of the field"


def _declares_the_same_twice(plugin: Checked) -> str:
    module = sys.modules[plugin.record.module.partition(":")[0]]
    kinds = plugin.registry.kinds.values()
    again = [spec for kind in kinds if hasattr(module, kind.hook) for spec in getattr(module, kind.hook)()]
    if [vars(spec) for spec in again] != [vars(spec) for spec in plugin.specs]:
        raise CheckFailed("its hooks yield different specs the second time; make the option classes at module level")
    return ""


def _says_what_it_does(plugin: Checked) -> str:
    for spec in plugin.specs:
        for field in fields(spec):
            if field.default == () and field.name != "options" and not isinstance(getattr(spec, field.name), tuple):
                raise CheckFailed(f"{spec.id}: {field.name} is a tuple, ({getattr(spec, field.name)!r},)")
        if not spec.summary or "\n" in spec.summary or len(spec.summary) > 100:
            raise CheckFailed(f"{spec.id}: give it a summary of one line, up to 100 characters")
    return ""


def _targets_can_be_called(plugin: Checked) -> str:
    skipped = [spec.id for spec in plugin.specs if missing_packages(spec)]
    count = 0
    for spec, field, code in plugin.code():
        count += 1
        what = f"{spec.id}: {getattr(spec, field)}"
        if (arity := CALLS.get((spec.kind, field))) is not None:
            _check_arity(what, code, arity)
        elif field == "target" and (lacks := [name for name in OFFERS.get(spec.kind, ()) if not hasattr(code, name)]):
            raise CheckFailed(f"{what} lacks {' and '.join(lacks)}")
    without = f", {', '.join(skipped)} left out: {plugin.record.detail}" if skipped else ""
    return f"{count} targets resolve{without}" if count or skipped else ""


def _check_arity(what: str, code: Any, arity: int) -> None:
    if not callable(code):
        raise CheckFailed(f"{what} cannot be called")
    try:
        inspect.signature(code).bind(*range(arity))
    except (TypeError, ValueError) as cause:
        raise CheckFailed(f"{what} is called with {arity} arguments: {cause}") from cause


def _options_are_sound(plugin: Checked) -> str:
    for cls in dict.fromkeys(field.owner for field in plugin.fields):
        try:
            build(cls, {})
        except ValueError as cause:
            raise CheckFailed(f"{cls.__qualname__} refuses its own defaults: {cause}") from cause
    for field in plugin.fields:
        if plugin.registry.options[field.key].owner is not field.owner:
            raise CheckFailed(f"{field.key}: is the kernel's own option, choose another name")
        if not field.help.strip():
            raise CheckFailed(f"{field.key}: give it a help text")
        try:
            resolved_type(field)
            check_value(field, field.default)
            json.dumps(json_schema(field))
        except (ValueError, NameError, TypeError) as cause:
            raise CheckFailed(f"{field.key}: {field.type_text} = {field.default!r}: {cause}") from cause
    return f"{len(plugin.fields)} options accept their defaults" if plugin.fields else ""


def _names_known_keys(plugin: Checked) -> str:
    """A misspelt key in ``reads``, ``switch`` or a condition would never be noticed."""
    index = first_party_index()
    known = {*plugin.registry.options, *plugin.registry.kinds, *index["installed"], *index["planned"]}
    for spec in plugin.specs:
        conditions = [*spec.excludes, *spec.needs]
        keys = [*spec.reads, *filter(None, [spec.switch]), *(re.split("[=>]", one)[0] for one in conditions)]
        for key in keys:
            kind = key.partition(":")[0] if ":" in key else ""
            if kind not in plugin.registry.kinds if kind else key not in known:
                raise CheckFailed(f"{spec.id}: {key} is no option and no kind:name.{did_you_mean(key, known)}")
    return ""


def _can_be_chosen(plugin: Checked) -> str:
    """What the spec of each kind needs so that a YAML can reach it and a run can use it."""
    for spec in plugin.specs:
        if (wanted := GIVEN.get(spec.kind, ())) and not any(getattr(spec, field) for field in wanted):
            raise CheckFailed(f"{spec.id}: give it {' or '.join(wanted)}")
        for field, words in WORDS.items():
            if getattr(spec, field, words[0]) not in words:
                raise CheckFailed(f"{spec.id}: {field} is one of {', '.join(words)}")
        used = (*getattr(spec, "uses", ()), *getattr(spec, "uses_when", ()))
        if unknown := [kind for kind in used if kind not in plugin.registry.kinds]:
            raise CheckFailed(f"{spec.id}: uses {', '.join(unknown)}, which is no kind")
        _check_has_code(plugin, spec)
    return ""


def _check_has_code(plugin: Checked, spec: Spec) -> None:
    module = sys.modules.get(plugin.record.module.partition(":")[0])
    observes = any(hasattr(module, event) for event in EVENTS)
    if not any(getattr(spec, field, None) for field in CODE) and not isinstance(spec, ChatTemplate) and not observes:
        raise CheckFailed(f"{spec.id}: give it a target")


DECLARATION_CHECKS: tuple[Callable[[Checked], str], ...] = (
    _declares_quickly, _declares_the_same_twice, _says_what_it_does, _targets_can_be_called, _options_are_sound,
    _names_known_keys, _can_be_chosen,
)  # fmt: skip
