"""``ftk plugins new``: for every kind a package that builds, passes the contract and its own tests, all untouched.

The reference is flit, pip's unpacking of a wheel, and pytest in a process of its own.
"""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from ftk.errors import ConfigError
from ftk.scaffold import new_plugin
from ftk.specs import KINDS

ROOT = Path(__file__).parents[2]


def build_wheel(package, folder):
    """A wheel made by the package's own build backend, in a process of its own because the backend wants its folder."""
    backend = tomllib.loads((package / "pyproject.toml").read_text())["build-system"]["build-backend"]
    code = f"import sys, {backend} as backend; print(backend.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(folder) / done.stdout.split()[-1]


def name_of(kind):
    return f"trial-{kind}".replace("_", "-")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One new plugin of every kind, and a folder into which all their wheels were unpacked."""
    folder = tmp_path_factory.mktemp("scaffold")
    for place in ("site", "wheels"):
        (folder / place).mkdir()
    packages = {kind: new_plugin(kind, name_of(kind), folder / "packages") for kind in KINDS}
    for package in packages.values():
        zipfile.ZipFile(build_wheel(package, str(folder / "wheels"))).extractall(folder / "site")
    return packages, folder / "site"


def test_every_kind_has_a_scaffold():
    assert {path.stem for path in (ROOT / "kernel" / "ftk" / "scaffolds").glob("*.txt")} == set(KINDS)


def test_new_plugins_of_every_kind_pass_their_own_tests(made, tmp_path):
    """All in one process, side by side, from their unpacked wheels: so they are not in conflict either."""
    packages, site = made
    tests = [str(path) for package in packages.values() for path in package.glob("test_*.py")]
    assert len(tests) == len(KINDS)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--import-mode=importlib",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            "/",
            *tests,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_like_ours(made, kind):
    package = made[0][kind]
    assert package.name == f"ftk-{KINDS[kind].prefix}{name_of(kind)}"
    text = (package / "pyproject.toml").read_text()
    assert len(text.splitlines()) < 20
    project = tomllib.loads(text)["project"]
    assert project["name"] == package.name
    assert list(project["entry-points"]["ftk"]) == [package.name.removeprefix("ftk-")]
    for path in package.rglob("*.*"):
        assert "{{" not in path.read_text(), path


def test_a_template_is_fifteen_lines_of_each(made):
    package = made[0]["template"]
    assert len((package / "pyproject.toml").read_text().splitlines()) <= 15
    assert len(next(package.glob("ftk_*.py")).read_text().splitlines()) <= 15


def test_new_packages_pass_ruff(made):
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed beside this Python")
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "."]
    where = {"cwd": next(iter(made[0].values())).parent, "capture_output": True, "text": True}
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run([ruff, *words, *config], **where)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("templte", "mine", "templte: no such kind. Did you mean template?"),
        ("x", "mine", "x: no such kind. Kinds: model_loader, quantizer"),
        ("adapter", "My_Adapter", "My_Adapter: a name is lower case letters and digits"),
        ("adapter", "1st", "1st: a name is lower case"),
        ("adapter", "a--b", "a--b: a name is lower case"),
        ("adapter", "../up", "../up: a name is lower case"),
        ("adapter", "", ": a name is lower case"),
        ("adapter", "a" * 41, "a: a name is lower case"),
        ("adapter", "ftk-mine", "ftk-mine: leave the ftk- out: mine"),
        ("command", "kernel", "kernel: taken by ftk-kernel. Two plugins of one name exclude each other"),
    ],
)
def test_a_name_that_cannot_be_is_one_line(kind, name, said, tmp_path):
    with pytest.raises(ConfigError) as caught:
        new_plugin(kind, name, tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path):
    package = new_plugin("tracker", "mine", tmp_path)
    (package / "README.md").write_text("changed")
    with pytest.raises(ConfigError, match="exists already"):
        new_plugin("tracker", "mine", tmp_path)
    assert (package / "README.md").read_text() == "changed"


def test_the_command_says_what_to_type_next(ftk_cli, tmp_path):
    result = ftk_cli("plugins", "new", "template", "mine", "--folder", tmp_path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ftk-template-mine" / "ftk_template_mine.py").exists()
    assert "ftk plugins check template-mine" in result.output
    assert ftk_cli("plugins", "new", "template", "mine", "--folder", tmp_path).exit_code == 2
