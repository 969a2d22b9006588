"""The plugins of this tree are packaged alike. The policy is section 2 of the design; the reference is each folder."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import ftk
import pytest
import yaml
from ftk.registry import Registry, first_party_index
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in ROOT.glob("plugins/*/*/pyproject.toml"))
CONTRIB = sorted(path.parent for path in ROOT.glob("contrib/*/pyproject.toml"))
KINDS = {
    "adapters", "apps", "converters", "engines", "launchers", "media", "models", "optimizers", "patches", "quantizers",
    "sources", "templates", "trackers", "trainers",
}  # fmt: skip
LIBRARIES = {
    "ftk_data": "ftk-data", "ftk_media": "ftk-media", "ftk_peft": "ftk-peft", "ftk_training": "ftk-training",
}  # fmt: skip
OPENERS = {
    path.parent.name if path.name == "__init__.py" else path.stem: path.relative_to(ROOT).parts[2]
    for path in (*ROOT.glob("plugins/*/*/*.py"), *ROOT.glob("plugins/*/*/*/__init__.py"))
    if "\ndef ftk_kinds(" in path.read_text(encoding="utf-8")
}
"""Module → distribution of plugins that open an extension point; those that live in it import its class of specs."""
OPEN_TO_PLUGINS = {
    "ftk", "ftk.errors", "ftk.kernel_options", "ftk.opening", "ftk.options", "ftk.plan", "ftk.registry", "ftk.run",
    "ftk.rundir", "ftk.showing", "ftk.specs", "ftk.types",
}  # fmt: skip
REQUIRED = {
    "name", "version", "description", "readme", "license", "requires-python", "dependencies", "entry-points",
}  # fmt: skip

each_plugin = pytest.mark.parametrize("folder", [*FOLDERS, *CONTRIB], ids=lambda folder: folder.name)


def project_of(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def module_of(folder):
    return folder.name.replace("-", "_")


def sources_of(folder):
    """The Python files that a wheel of the plugin holds."""
    module = folder / f"{module_of(folder)}.py"
    return [module] if module.exists() else sorted((folder / module_of(folder)).rglob("*.py"))


@cache
def imports_of(path):
    """(imported module, names taken from it) for every import of a file, at any depth."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.module, tuple(alias.name for alias in node.names)))
    return found


registry_of_all = cache(Registry.discover)
distributions_of_all = cache(packages_distributions)
"""Both look through the whole environment."""


@each_plugin
def test_pyproject_says_what_is_needed_and_nothing_else(folder):
    text = (folder / "pyproject.toml").read_text()
    content = tomllib.loads(text)
    assert len(text.splitlines()) < 20
    assert content.keys() == {"build-system", "project"}
    assert content["build-system"] == {"requires": ["flit_core>=3.11"], "build-backend": "flit_core.buildapi"}
    assert REQUIRED <= content["project"].keys() <= REQUIRED | {"optional-dependencies"}


@each_plugin
def test_the_four_spellings_of_a_name_agree(folder):
    project = project_of(folder)
    assert folder.name.startswith("ftk-")
    assert project["name"] == folder.name
    assert project["entry-points"] == {"ftk": {folder.name.removeprefix("ftk-"): module_of(folder)}}
    assert sources_of(folder), f"{folder} has no module {module_of(folder)}"
    assert folder.parent.name in KINDS or folder in CONTRIB


@each_plugin
def test_version_licence_and_python_are_those_of_the_kernel(folder):
    kernel = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    project = project_of(folder)
    assert project["version"] == ftk.__version__
    assert project["readme"] == "README.md"
    for key in ("license", "requires-python"):
        assert project[key] == kernel[key]
    assert 10 < len(project["description"]) <= 100


@each_plugin
def test_requirements_have_a_floor_and_no_cap(folder):
    project = project_of(folder)
    extras = project.get("optional-dependencies", {})
    assert extras.keys() <= {"backend"}
    requirements = [Requirement(text) for text in (*project["dependencies"], *extras.get("backend", ()))]
    names = [requirement.name for requirement in requirements]
    assert "ftk-kernel" in names
    assert "ftk" not in names, "that distribution belongs to a stranger"
    assert len(set(names)) == len(names)
    for requirement in requirements:
        operators = [specifier.operator for specifier in requirement.specifier]
        assert operators == [">="], f"{requirement}: a floor, and nothing else"


@each_plugin
def test_the_folder_holds_a_readme_and_a_test(folder):
    assert (folder / "README.md").exists()
    assert (folder / f"test_{module_of(folder).removeprefix('ftk_')}.py").exists()
    assert not (folder / "setup.py").exists()


def is_known(key, registry):
    index = first_party_index()
    return key in registry.options or key in registry.replaced or key in index["installed"] or key in index["planned"]


@each_plugin
def test_the_yaml_of_the_readme_is_a_config(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```ya?ml\n(.*?)```", text, re.DOTALL)
    assert blocks, "show how a YAML uses it"
    registry = registry_of_all()
    for block in blocks:
        content = yaml.safe_load(block)
        assert isinstance(content, dict)
        assert [key for key in content if not is_known(key, registry)] == []


@each_plugin
def test_the_kernel_is_used_through_its_open_doors(folder):
    for path in sources_of(folder):
        for module, names in imports_of(path):
            if module.split(".")[0] == "ftk":
                assert module in OPEN_TO_PLUGINS, f"{path.relative_to(ROOT)} imports {module}"
                assert not [name for name in names if name.startswith("_")], path.relative_to(ROOT)


def required_by(distribution):
    """What a distribution requires directly, extras aside."""
    try:
        lines = requires(distribution) or ()
    except PackageNotFoundError:
        return set()
    return {canonicalize_name(Requirement(line).name) for line in lines if "extra ==" not in line}


@each_plugin
def test_everything_imported_is_declared(folder):
    """Its own modules, the libraries among plugins and those that open what it lives in, and its dependencies with what
    those require themselves."""
    project = project_of(folder)
    lines = (*project["dependencies"], *project.get("optional-dependencies", {}).get("backend", ()))
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    brought = declared.union(*map(required_by, declared - {"ftk-kernel"}))
    distributions = distributions_of_all()
    for path in sources_of(folder):
        for module, _ in imports_of(path):
            top = module.split(".")[0]
            where = f"{path.relative_to(ROOT)} imports {module}"
            if top in ("ftk", module_of(folder)) or top in sys.stdlib_module_names:
                continue
            if top.startswith("ftk_"):
                owner = LIBRARIES.get(top) or OPENERS.get(top)
                assert owner in declared, f"{where}, which is another plugin's or not declared"
            else:
                owners = {canonicalize_name(name) for name in distributions.get(top, [top])}
                assert owners & brought, f"{where}, which is not declared"


def test_requirements_txt_is_the_tree():
    wanted = ["-c constraints.txt", "-e .[test]", *(f"-e ./{path.relative_to(ROOT).as_posix()}" for path in FOLDERS)]
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert lines == wanted


def test_constraints_are_exact_and_name_nothing_of_ours():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and line[0] != "#":
            requirement = Requirement(line)
            assert [one.operator for one in requirement.specifier] == ["=="], line
            assert not requirement.name.startswith("ftk")


def test_the_extras_of_the_kernel_name_plugins_of_this_tree():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    ours = {folder.name for folder in FOLDERS} | {"ftk-kernel"}
    named = {Requirement(line).name for lines in extras.values() for line in lines}
    assert {name for name in named if name.startswith("ftk")} <= ours


def test_each_plugin_can_be_copied_under_another_name():
    """First-party plugins have no privilege: nothing outside of a plugin's own folder imports it, but the libraries."""
    modules = {module_of(folder) for folder in FOLDERS} - LIBRARIES.keys()
    for path in (ROOT / "kernel").rglob("*.py"):
        assert not {module.split(".")[0] for module, _ in imports_of(path)} & (modules | LIBRARIES.keys()), path
