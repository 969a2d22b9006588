"""What a command makes of a YAML, a run directory, and what a finished run has left."""

import json

import pytest
from ftk.config import Setting
from ftk.errors import ConfigError
from ftk.opening import _result_of, read_settings


@pytest.fixture
def folder(tmp_path):
    def write(**facts):
        record = {"status": "finished", "config": "run.yaml", "options": {"seed": 7, "token": "***"}, **facts}
        (tmp_path / "run.json").write_text(json.dumps(record))
        return str(tmp_path)

    return write


def test_a_run_directory_is_its_own_config_without_its_secrets(folder):
    out = folder(result="adapter")
    settings, config = read_settings(out, ["--seed", "8"])
    assert {key: setting.value for key, setting in settings.items()} == {"seed": 8}
    assert config == f"{out}/run.json"


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is no run directory \(it has no run\.json\)"):
        read_settings(str(tmp_path), [])


def test_a_finished_run_points_at_its_result(folder):
    assert _result_of({}, folder(result="adapter"))["adapter_name_or_path"].value == [folder(result="adapter")]
    assert _result_of({}, folder(result="model"))["model_name_or_path"].value == folder(result="model")
    through_yaml = {"output_dir": Setting(folder(result="model"), "run.yaml:1")}
    assert "model_name_or_path" in _result_of(through_yaml, "run.yaml")
    assert _result_of({"output_dir": Setting("nowhere", "run.yaml:1")}, "run.yaml") == {}


def test_an_unfinished_run_is_not_taken_for_its_base_model(folder):
    out = folder(status="running")
    with pytest.raises(ConfigError, match=r"its run is not finished\. Type ftk run run\.yaml to go on"):
        _result_of({}, out)
    assert _result_of({"output_dir": Setting(out, "run.yaml:1")}, "run.yaml") == {}
