"""The rules of the house that a machine can check: what the kernel may know, how large it is, what files are called."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from ftk.registry import Registry
from ftk.specs import KINDS
from ftk.testing import FORBIDDEN

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "kernel" / "ftk"
MOST_KERNEL_LINES = 2500
MOST_TESTING_LINES = 450
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
ORDINARY_WORDS = {
    "chat": "one of the examples that a trainer eats",
    "none": "the word for no tracker",
    "file": "a part of ordinary paths",
    "text": "an example that a trainer eats, and a message's content",
    "data": "a key of run.json",
    "default": "an option's default",
    "eval": "the data of an evaluation",
    "template": "a kind",
    "vllm": "a library that declaring may not import",
}
"""Names of features that mean something of the kernel's too."""


def tracked(pattern="*"):
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", pattern], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def code_lines(path):
    """How many lines hold code: neither blank, nor comment, nor docstring."""
    text = path.read_text(encoding="utf-8")
    lines = set()
    empty = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in empty:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def test_the_kernel_is_small():
    """What a run imports; the test kit, which no run imports, is counted apart."""
    testing = KERNEL / "testing"
    kernel = sum(code_lines(path) for path in KERNEL.rglob("*.py") if testing not in path.parents)
    assert kernel < MOST_KERNEL_LINES
    assert sum(code_lines(path) for path in testing.rglob("*.py")) < MOST_TESTING_LINES


@pytest.mark.parametrize("path", sorted(KERNEL.rglob("*.py")), ids=lambda path: path.name)
def test_the_kernel_imports_no_library_of_the_field(path):
    """At no level, so not inside functions either."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        tops = {name.split(".")[0] for name in names}
        assert not tops & {*FORBIDDEN, "sentencepiece", "deepspeed", "safetensors", "matplotlib", "PIL"}, node.lineno


def test_no_name_of_a_feature_stands_in_the_kernel():
    """Apart from index.json, which is generated data. A docstring may give an example."""
    registry = Registry.discover()
    names = {spec.name for kind in KINDS for spec in registry.specs(kind).values()} - ORDINARY_WORDS.keys()
    for path in KERNEL.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in names, f"{path.name}:{node.lineno}: {node.value}"


def test_no_file_has_a_name_that_explains_nothing():
    assert [path for path in tracked("*.py") if path.stem in BANNED_NAMES] == []


def test_nothing_tells_anybody_to_install_the_stranger_called_ftk():
    """On the package index the name ``ftk`` is not ours."""
    pattern = re.compile(r"pip install (?:-\S+ )*[\"'`]?ftk(?![\w-])")
    for path in tracked():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".json"} and path != Path(__file__):
            found = pattern.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"


@pytest.mark.parametrize("words", [["plugins", "list"], ["--help"], ["options"], ["schema"]], ids=" ".join)
def test_listing_imports_nothing_heavy(words):
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from ftk.cli import main\n"
        f"result = CliRunner().invoke(main, {words!r})\n"
        "assert result.exit_code == 0, result.output\n"
        f"print('heavy', *sorted(set({FORBIDDEN!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["heavy"]), done.stderr
