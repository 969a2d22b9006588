"""A stranger's plugins, as wheels in a virtual environment outside of this tree: found, used, removed, broken.

No network: every wheel is built here, and the environment sees the other packages of this one through links. What pip
and venv do is the reference.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from ftk.scaffold import new_plugin
from ftk.testing import write_plugin

ROOT = Path(__file__).parents[2]
RUN = """\
model_name_or_path: ftk://random/llama
finetuning_type: full
stage: acme-loop
acme_loop_steps: 2
template: acme
dataset: rows.jsonl
output_dir: out
cutoff_len: 64
"""

pytest.importorskip("flit_core", reason='building wheels without network needs pip install "ftk-kernel[test]"')
pytest.importorskip("hatchling", reason='building wheels without network needs pip install "ftk-kernel[test]"')


class Environment:
    """A virtual environment, and a working directory outside of the tree."""

    def __init__(self, folder):
        self.folder, self.work, self.wheels = (folder / name for name in ("environment", "work", "wheels"))
        self.work.mkdir()
        self.wheels.mkdir()

    def call(self, *command, **variables):
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("FTK_", "PYTHON"))}
        environment = {**kept, "OMP_NUM_THREADS": "1", **variables}
        return subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True)

    def ftk(self, *words, **variables):
        return self.call(str(self.folder / "bin" / "ftk"), *words, **variables)

    def pip(self, *words):
        done = self.call(sys.executable, "-m", "pip", "--python", str(self.folder / "bin" / "python"), "-q", *words)
        assert done.returncode == 0, done.stderr

    def install(self, pattern):
        self.pip("install", "--no-deps", "--no-index", *map(str, sorted(self.wheels.glob(pattern))))

    def listed(self, **variables):
        """Distribution → what ``ftk plugins list`` says of it."""
        done = self.ftk("plugins", "list", "--json", **variables)
        assert done.returncode == 0, done.stderr
        return {one["distribution"]: one for one in json.loads(done.stdout)}


def link_other_packages(folder):
    """Links to everything that is installed here, except what is ours; so there is torch, and not our tree."""
    folder.mkdir()
    for place in dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))):
        for path in Path(place).iterdir():
            if not path.name.startswith(("ftk", "_ftk", "__")) and path.suffix != ".pth":
                (folder / path.name).symlink_to(path)


BUILD = """
import importlib, os, sys
out, *given = sys.argv[1:]
for backend, folder in zip(given[::2], given[1::2]):
    os.chdir(folder)
    importlib.import_module(backend).build_wheel(out)
"""
"""Backends build what lies in the folder that they are called in; one process does all, as starting takes longest."""


def build_wheels(packages, folder):
    given = []
    for package in packages:
        facts = tomllib.loads((package / "pyproject.toml").read_text())
        given += [facts["build-system"]["build-backend"], str(package)]
    subprocess.run([sys.executable, "-c", BUILD, str(folder), *given], check=True, capture_output=True)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The kernel, the plugins of this tree, and a stranger's template and trainer, all from wheels."""
    folder = tmp_path_factory.mktemp("third-party")
    made = Environment(folder)
    packages = [ROOT, *(path.parent for path in sorted(ROOT.glob("plugins/*/*/pyproject.toml")))]
    packages += [new_plugin("template", "acme", folder), new_plugin("trainer", "acme-loop", folder)]
    build_wheels(packages, made.wheels)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made.folder)], check=True)
    link_other_packages(folder / "others")
    site = next((made.folder / "lib").glob("python*/site-packages"))
    (site / "others.pth").write_text(f"{folder / 'others'}\n")
    made.install("*.whl")
    rows = [{"instruction": f"Say {word}.", "output": word} for word in ("one", "two")]
    (made.work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made.work / "run.yaml").write_text(RUN)
    return made


def test_wheels_of_strangers_are_listed_with_distribution_and_version(environment):
    listed = environment.listed()
    assert {one["state"] for one in listed.values()} <= {"ok", "needs"}
    assert listed["ftk-template-acme"]["provides"] == ["template:acme"]
    assert listed["ftk-acme-loop"]["provides"] == ["trainer:acme-loop"]
    assert listed["ftk-acme-loop"]["version"] == "0.1.0"
    assert listed.keys() == {path.parent.name for path in ROOT.glob("plugins/*/*/pyproject.toml")} | {
        "ftk-template-acme", "ftk-acme-loop",
    }  # fmt: skip
    where = environment.call(str(environment.folder / "bin" / "python"), "-c", "import ftk; print(ftk.__file__)")
    assert Path(where.stdout).is_relative_to(environment.folder)


def test_a_run_uses_them(environment):
    done = environment.ftk("run", "run.yaml")
    assert done.returncode == 0, done.stderr
    record = json.loads((environment.work / "out" / "run.json").read_text())
    assert (record["chosen"]["trainer"], record["chosen"]["template"]) == (["acme-loop"], ["acme"])
    assert record["plugins"]["ftk-template-acme"] == record["plugins"]["ftk-acme-loop"] == "0.1.0"
    assert record["metrics"].keys() == {"first_loss", "last_loss"}
    assert (environment.work / "out" / "model.safetensors").exists()


FIVE = {
    "zz-import": ("import no_such_module", {}, "broken", "No module named 'no_such_module'"),
    "zz-arguments": (
        "import ftk\n@ftk.hookimpl\ndef ftk_adapters(model):\n    yield",
        {},
        "broken",
        "Argument(s) {'model'} are declared in the hookimpl but can not be found",
    ),
    "zz-hook": (
        "import ftk\n@ftk.hookimpl\ndef ftk_adaptors():\n    yield",
        {},
        "broken",
        "unknown hook ftk_adaptors. Did you mean ftk_adapters?",
    ),
    "zz-lora": (
        "import ftk\n@ftk.hookimpl\ndef ftk_adapters():\n    yield ftk.Adapter('lora', target='a:b')",
        {"distribution": "acme-lora", "version": "3.1"},
        "conflict",
        "adapter lora is declared by both acme-lora 3.1 and ftk-lora 0.1.0",
    ),
    "zz-future": ("raise SystemExit(9)", {"requires": "ftk-kernel>=99"}, "incompatible", "needs ftk-kernel>=99"),
}


@pytest.fixture
def five(tmp_path):
    """A folder with five broken plugins, and their distributions."""
    found = {}
    for name, (source, options, state, detail) in FIVE.items():
        write_plugin(tmp_path, name, source, **options)
        found[options.get("distribution", f"ftk-{name}")] = (state, detail)
    return str(tmp_path), found


def test_five_broken_plugins_are_named_and_the_rest_works(environment, five):
    folder, expected = five
    before, listed = environment.listed(), environment.listed(PYTHONPATH=folder)
    for distribution, (state, detail) in expected.items():
        assert listed[distribution]["state"] == state
        assert detail in listed[distribution]["detail"]
        assert listed[distribution]["mend"]
    changed = {name for name, one in before.items() if one != listed[name]}
    assert changed == {"ftk-lora"}
    done = environment.ftk("run", "run.yaml", "--dry-run", "--output_dir", "elsewhere", PYTHONPATH=folder)
    assert done.returncode == 0, done.stderr


def test_what_is_broken_stops_only_the_run_that_asks_for_it(environment, five):
    words = ("run", "run.yaml", "--dry-run", "--output_dir", "elsewhere", "--finetuning_type")
    done = environment.ftk(*words, "lora", PYTHONPATH=five[0])
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: command line: --finetuning_type: "
        "adapter lora is declared by both acme-lora 3.1 and ftk-lora 0.1.0. Uninstall one"
    ]
    done = environment.ftk(*words, "zz-import", PYTHONPATH=five[0])
    assert done.returncode == 2
    assert "zz-import belongs to ftk-zz-import 0.1, which is broken: ModuleNotFoundError" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_strict_turns_trouble_into_an_error(environment, five):
    done = environment.ftk("plugins", "list", PYTHONPATH=five[0], FTK_STRICT="1")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    for distribution in five[1]:
        assert distribution in done.stderr
    assert environment.ftk("plugins", "list", FTK_STRICT="1").returncode == 0


def test_a_disabled_plugin_is_never_imported(environment, tmp_path):
    trace = tmp_path / "imported"
    write_plugin(tmp_path / "site", "zz-loud", f"open({str(trace)!r}, 'w').close()")
    variables = {"PYTHONPATH": str(tmp_path / "site")}
    assert environment.listed(**variables, FTK_DISABLE="zz-loud")["ftk-zz-loud"]["state"] == "disabled"
    (tmp_path / "run.yaml").write_text(RUN + "plugins: {disable: [zz-loud]}\n")
    done = environment.ftk("run", str(tmp_path / "run.yaml"), "--dry-run", "--output_dir", "elsewhere", **variables)
    assert done.returncode == 0, done.stderr
    assert not trace.exists()
    assert environment.listed(**variables)["ftk-zz-loud"]["state"] == "ok"
    assert trace.exists()


@pytest.fixture
def without_the_template(environment):
    environment.pip("uninstall", "-y", "ftk-template-acme")
    yield
    environment.install("ftk_template_acme*.whl")


@pytest.mark.usefixtures("without_the_template")
def test_after_uninstalling_the_same_config_names_the_missing_plugin(environment):
    done = environment.ftk("run", "run.yaml", "--output_dir", "again")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: run.yaml:5: template: acme is not installed.")
    assert "pip install ftk-template-acme" in done.stderr
    assert not (environment.work / "again").exists()
