"""The table against what a plan of the same pair says."""

from __future__ import annotations

import json

import pytest
from ftk import FtkError
from ftk.registry import Registry
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_caps.pairs import choices, verdict

DECLARE = """
    import ftk

    @ftk.options
    class Options:
        use_whisk: bool = ftk.option(False, help="Whisk.")

    @ftk.hookimpl
    def ftk_adapters():
        yield ftk.Adapter("whole", target="ftk_whisk:apply", saves="model", excludes=("quantizer",))
        yield ftk.Adapter("part", target="ftk_whisk:apply", needs=("quantization_bit=4",))

    @ftk.hookimpl
    def ftk_quantizers():
        yield ftk.Quantizer("coarse", target="ftk_whisk:apply", bits=(2, 4))
        yield ftk.Quantizer("far", target="ftk_whisk:apply", bits=(4,), requires=("nowhere_to_be_found",), gpu=True)
        yield ftk.Quantizer("near", target="ftk_whisk:apply", bits=(4,), gpu=True)

    @ftk.hookimpl
    def ftk_optimizers():
        yield ftk.Optimizer("whisk", target="ftk_whisk:apply", options=Options, switch="use_whisk",
                            excludes=("adapter:part",))

    def apply(*_):
        pass
"""


def table(ftk_cli, *kinds):
    result = ftk_cli("caps", *kinds, "--json")
    assert result.exit_code == 0, result.output
    return {row["name"]: row["with"] for row in json.loads(result.output)}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("caps")


def test_each_cell_is_what_the_specs_say(ftk_cli, fake_plugin):
    fake_plugin("whisk", DECLARE)
    rows = table(ftk_cli, "adapter", "quantizer")
    assert rows["whole"]["none"]["verdict"] == "yes"
    assert rows["whole"]["coarse 2"]["refusals"] == ["adapter:whole and quantizer exclude each other. Take one out"]
    assert rows["part"]["coarse 2"]["refusals"] == ["adapter:part needs quantization_bit=4"]
    assert rows["part"]["coarse 4"]["verdict"] == "yes"
    assert rows["part"]["far 4"]["lacks"] == ["nowhere_to_be_found"]
    assert rows["part"]["near 4"]["verdict"] == "gpu"
    assert table(ftk_cli, "optimizer", "adapter")["whisk"]["part"]["verdict"] == "no"


def test_the_table_numbers_its_reasons(ftk_cli, fake_plugin):
    fake_plugin("whisk", DECLARE)
    lines = ftk_cli("caps", "adapter", "quantizer").output.splitlines()
    (reason,) = [line for line in lines if line.endswith("adapter:part needs quantization_bit=4")]
    (row,) = [line for line in lines if line.startswith("part ")]
    assert f"no {reason.split()[0]}" in row


def test_a_kind_that_is_none_is_one_line(ftk_cli):
    result = ftk_cli("caps", "adaptor")
    assert "adaptor: is no kind. Did you mean adapter? There is adapter," in result.output


def test_every_cell_says_what_a_plan_says(tmp_path):
    registry = Registry.discover()
    compared = 0
    for down in choices(registry, "adapter"):
        for across in choices(registry, "quantizer"):
            said, values = verdict(registry, down, across), {**down.values, **across.values}
            if (
                said.lacks
                or across.label.endswith(" files")
                or not all(fits(registry, *pair) for pair in values.items())
            ):
                continue  # a plan needs what is missing, a model's files, or a number that is not known here
            refused = refusal(tmp_path, values)
            assert bool(refused) == bool(said.refusals), (down.label, across.label, refused, said)
            assert all(reason in refused for reason in said.refusals), (down.label, across.label, refused)
            compared += 1
    assert compared >= 2


def fits(registry, key, value):
    return value is not True or registry.options[key].annotation in (bool, "bool")


def refusal(folder, values):
    try:
        plan_in(folder, **values)
    except FtkError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["trainer", "optimizer", "model_patch", "engine"])
def test_every_kind_can_be_held_against_adapters(ftk_cli, kind):
    assert table(ftk_cli, kind, "adapter")
