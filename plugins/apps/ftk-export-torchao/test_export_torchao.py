"""What it declares; the rounding, which needs torchao, is in tests/e2e/test_quantised_exports.py."""

import pytest
from ftk import ConfigError
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk_export.writing import check_target


def test_the_plugin_keeps_the_contract():
    assert check_plugin("export-torchao")


def test_bits_that_it_has_not_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ftk.plugins._is_installed", lambda package: True)
    words = ["--model_name_or_path", "ftk://random/llama", "--export_dir", str(tmp_path / "out")]
    words += ["--export_format", "torchao", "--export_quantization_bit"]
    with pytest.raises(ConfigError, match="4: torchao can do 8"):
        check_target(open_run("export", None, [*words, "4"]))
    assert check_target(open_run("export", None, [*words, "8"])) == tmp_path / "out"
