"""Every hook's docstring holds a whole plugin, and that plugin passes the contract. The reference is check_plugin."""

import inspect
import re
from textwrap import dedent

import pytest
from ftk import events, hookspecs
from ftk.events import EVENTS
from ftk.specs import KINDS
from ftk.testing import check_plugin

HOOKS = {name: hook for module in (hookspecs, events) for name, hook in vars(module).items() if name.startswith("ftk_")}


def example_of(hook):
    """(file name, source) of the plugin in a hook's docstring."""
    found = re.search(r"\n``(ftk_\w+)\.py``, reached by.*?::\n\n(.*)", inspect.getdoc(HOOKS[hook]), re.DOTALL)
    assert found, f"{hook} has no example that begins with ``ftk_NAME.py``, reached by ...::"
    return found[1], dedent(found[2])


def test_there_is_a_hook_for_each_kind_and_event():
    assert HOOKS.keys() == {kind.hook for kind in KINDS.values()} | set(EVENTS) | {"ftk_kinds"}


@pytest.mark.parametrize("hook", HOOKS)
def test_the_docstring_answers_when_what_and_what_to_return(hook):
    text = inspect.getdoc(HOOKS[hook])
    assert re.search(r"^Called ", text, re.MULTILINE)
    assert re.search(r"\b[Gg]ets\b", text)
    assert re.search(r"\byields\b|\breturns\b", text)
    assert text.count("\n") < 45


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_is_a_plugin_that_passes_every_check(hook, fake_plugin):
    module, source = example_of(hook)
    assert f"def {hook}(" in source
    name = module.removeprefix("ftk_").replace("_", "-")
    fake_plugin(name, source, module=module)
    assert check_plugin(f"ftk-{name}")[0].startswith(f"ftk-{name} 0.1 is ")
