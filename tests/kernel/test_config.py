"""Reading configs: scalars, line numbers, overrides. The reference is the core schema of YAML 1.2 (section 10.3)."""

import math

import pytest
from ftk.config import Setting, merge, parse_overrides, parse_value, read_yaml
from ftk.errors import ConfigError


def written(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5), ("1.0e-4", 1e-4), ("1E3", 1000.0), (".5", 0.5), ("-3", -3), ("0x10", 16), ("010", 10),
        ("1_000", 1000), ("true", True), ("False", False), ("no", "no"), ("on", "on"), ("yes", "yes"), ("null", None),
        ("~", None), ("", None), ("1e-4x", "1e-4x"), ("q_proj,v_proj", "q_proj,v_proj"), ("[a, 1]", ["a", 1]),
        ("'1'", "1"), ("2024-01-01", "2024-01-01"), ("{reentrant: false}", {"reentrant": False}), ("12:30", "12:30"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_special_floats_are_read():
    assert parse_value(".inf") == math.inf
    assert math.isnan(parse_value(".nan"))


def test_each_key_knows_its_line(tmp_path):
    path = written(tmp_path, "### model\nmodel_name_or_path: x\n\nlearning_rate: 2e-5\nnested:\n  a: 1\n")
    settings = read_yaml(path)
    assert settings["learning_rate"] == Setting(2e-5, f"{path}:4")
    assert settings["nested"] == Setting({"a": 1}, f"{path}:5")
    assert list(settings) == ["model_name_or_path", "learning_rate", "nested"]


def test_json_is_a_config_too(tmp_path):
    path = written(tmp_path, '{"learning_rate": 1e-5,\n "bf16": true}')
    assert {key: setting.value for key, setting in read_yaml(path).items()} == {"learning_rate": 1e-5, "bf16": True}


def test_an_empty_file_has_no_settings(tmp_path):
    assert read_yaml(written(tmp_path, "# nothing\n")) == {}


def test_anchors_and_merge_keys_work(tmp_path):
    path = written(tmp_path, "a: &x {one: 1}\nb:\n  <<: *x\n  two: 2\n")
    assert read_yaml(path)["b"].value == {"one": 1, "two": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [1, 2\n", ":3:1: does not parse"),
        ("a: 1\n b: 2\n", ":2:3: does not parse"),
        ("a: 1\nb: 2\na: 3\n", ":3: a: given twice, first at"),
        ("- a\n- b\n", ":1: expected `key: value` lines, found a list"),
        ("1: x\n", ":1: 1: a key must be a word"),
        ("a: !!python/object:os.system x\n", "does not parse"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        read_yaml(written(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_suggests_one_nearby(tmp_path):
    written(tmp_path, "a: 1")
    said = r"runn\.yaml: cannot be read: No such file or directory\. Did you mean run\.yaml"
    with pytest.raises(ConfigError, match=said):
        read_yaml(tmp_path / "runn.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: caf\xe9")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_yaml(tmp_path / "latin.yaml")


def test_overrides_come_in_four_spellings():
    words = ["--learning_rate", "1e-5", "--max-steps=-1", "bf16=true", "--do_train", "--seed", "-3"]
    values = {key: setting.value for key, setting in parse_overrides(words).items()}
    assert values == {"learning_rate": 1e-5, "max_steps": -1, "bf16": True, "do_train": True, "seed": -3}


@pytest.mark.parametrize("words", [["train.yaml"], ["--", "x"], ["--1=2"]])
def test_a_word_that_is_no_override_is_refused(words):
    with pytest.raises(ConfigError, match="command line"):
        parse_overrides(words)


def test_a_dotted_override_sets_one_entry_and_leaves_the_others():
    settings = {"kwargs": Setting({"a": 1, "b": {"c": 2}}, "f:1"), "x": Setting(1, "f:2")}
    merged = merge(settings, parse_overrides(["--kwargs.b.c", "5", "--kwargs.d", "6"]))
    assert merged["kwargs"].value == {"a": 1, "b": {"c": 5}, "d": 6}
    assert merged["x"] == settings["x"]
    assert settings["kwargs"].value == {"a": 1, "b": {"c": 2}}
