"""The test kit: check_plugin finds each kind of mistake, and the fixtures leave nothing behind.

The reference is a list of plugins with one mistake each; the same plugins without it pass (tests/contract).
"""

import subprocess
import sys
from importlib.metadata import distributions
from textwrap import dedent

import pytest
from ftk.errors import FtkError
from ftk.testing import CheckFailed, check_plugin, on_path, run_in, write_plugin

START = "import ftk\n\ndef do(*words):\n    return words\n"


def declares(hook, spec, before=""):
    """The source of a plugin whose only hook yields one spec; its module is ftk_zz."""
    return f"{START}\n{dedent(before)}\n@ftk.hookimpl\ndef {hook}():\n    yield ftk.{spec}\n"


def made(hook, spec, more="", target="ftk_zz:do", before=""):
    return declares(hook, f"{spec}('zz', target={target!r}, summary='Made up'{more})", before)


def adapter(more="", target="ftk_zz:do", before="", summary="Made up"):
    return declares("ftk_adapters", f"Adapter('zz', target={target!r}, summary={summary!r}{more})", before)


def template(**formats):
    values = {"assistant": "{content}{eos}", "summary": "Made up", **formats}
    return declares("ftk_chat_templates", f"ChatTemplate('zz', {', '.join(f'{k}={v!r}' for k, v in values.items())})")


def converter(body):
    before = "import random\n\nseen = []\n\ndef convert(row, entry):\n" + "".join(f"    {line}\n" for line in body)
    return declares(
        "ftk_dataset_converters", "DatasetConverter('zz', target='ftk_zz:convert', summary='Made up')", before
    )


def options(line, more=""):
    return adapter(f", options=Options{more}", before=f"@ftk.options\nclass Options:\n    {line}\n")


RANK = "zz_rank: int = ftk.option(1, help='A.')"
HI = "return ftk.TextExample(str(row.get('text')))"
MISTAKES = [
    ("1 / 0", "ftk-zz 0.1: is broken: ZeroDivisionError: division by zero. pip install -U ftk-zz"),
    ("import numpy\n" + adapter(), "importing it imports numpy"),
    (adapter(summary=""), "adapter:zz: give it a summary of one line"),
    (adapter(summary="one\ntwo"), "adapter:zz: give it a summary of one line"),
    (adapter(target="ftk_zz_nowhere:do"), "adapter:zz: cannot import ftk_zz_nowhere:do: ModuleNotFoundError"),
    (adapter(target="ftk_zz:undone"), "adapter:zz: cannot import ftk_zz:undone: AttributeError"),
    (adapter(target="ftk_zz:one", before="def one(a): ..."), "is called with 3 arguments: too many positional"),
    (adapter(target="ftk_zz:one", before="one = 1"), "ftk_zz:one cannot be called"),
    (adapter(target=""), "adapter:zz: give it a target"),
    (adapter(", saves='nothing'"), "adapter:zz: saves is one of adapter, model"),
    (adapter(", requires='vllm'"), "adapter:zz: requires is a tuple, ('vllm',)"),
    (adapter(", reads=('no_such_option',)"), "adapter:zz: no_such_option is no option and no kind:name"),
    (adapter(", excludes=('adaptor:x',)"), "adapter:zz: adaptor:x is no option and no kind:name"),
    (adapter(", needs=('seeed=1',)"), "adapter:zz: seeed is no option and no kind:name. Did you mean seed?"),
    (adapter(", switch='use_zz'"), "adapter:zz: use_zz is no option"),
    (options("zz_rank: int = ftk.option(1, help='')"), "zz_rank: give it a help text"),
    (options("zz_rank: int = ftk.option('x', help='A.')"), "zz_rank: int = 'x': 'x': input should be a valid integer"),
    (options("zz_rank: int = ftk.option(0, help='A.', minimum=1)"), "zz_rank: int = 0: 0: input should be greater"),
    (options("zz_rank: 'Nothing' = ftk.option(1, help='A.')"), "zz_rank: Nothing = 1: name 'Nothing' is not defined"),
    (options("seed: int = ftk.option(1, help='A.')"), "seed: is the kernel's own option"),
    (options(f"{RANK}\n    def __post_init__(self):\n        raise ValueError('no')"), "refuses its own defaults: no"),
    (adapter(", options=ftk.options(type('A', (), {'__annotations__': {}}))"), "yield different specs the second time"),
    (made("ftk_trainers", "Trainer", ", examples='pictures'"), "examples is one of text"),
    (made("ftk_trainers", "Trainer", ", uses=('adaptor',)"), "uses adaptor, which is no"),
    (made("ftk_optimizers", "Optimizer"), "optimizer:zz: give it switch"),
    (made("ftk_quantizers", "Quantizer"), "quantizer:zz: give it bits"),
    (made("ftk_dataset_sources", "DatasetSource"), "source:zz: give it field"),
    (made("ftk_model_loaders", "ModelLoader", target="ftk_zz"), "lacks load_tokenizer and load_model"),
    (made("ftk_commands", "Command"), "command:zz: ftk_zz:do is no click command"),
    (template(user="USER"), "template:zz: user='USER' lacks {content}"),
    (template(assistant="{content}"), "assistant='{content}' holds no stop"),
    (template(prefix="SECOND-QUESTION"), "template:zz: renders the turns of a conversation as 'SECOND-QUESTION"),
    (converter(["return row['no_such_column']"]), "raises KeyError: 'no_such_column'; raise ftk.DataError"),
    (converter(["row['more'] = 1", HI]), "converter:zz: changes the row that it is given"),
    (converter(["seen.append(1)", "return ftk.TextExample(str(len(seen)))"]), "gives two different examples"),
    (converter(["return 'text'"]), "converter:zz: returns str, which is no example"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "said"), MISTAKES)
def test_each_mistake_is_found_and_named(fake_plugin, source, said):
    fake_plugin("zz", source)
    with pytest.raises(CheckFailed) as caught:
        check_plugin("ftk-zz")
    assert said in str(caught.value)
    assert isinstance(caught.value, FtkError)


def test_all_mistakes_are_told_at_once(fake_plugin):
    fake_plugin("zz", adapter(", saves='nothing', reads=('no_such_option',)", summary=""))
    with pytest.raises(CheckFailed) as caught:
        check_plugin("zz")
    assert len(str(caught.value).splitlines()) == 3


def test_a_good_plugin_passes_by_either_name_and_says_what_holds(fake_plugin):
    fake_plugin("zz", adapter())
    lines = check_plugin("zz")
    assert lines == check_plugin("ftk-zz") or lines[1].startswith("declares in")
    assert lines[0] == "ftk-zz 0.1 is ok, provides adapter:zz"
    assert "1 targets resolve" in lines


def test_a_plugin_that_needs_a_package_says_so_and_its_targets_are_left_out(fake_plugin):
    fake_plugin("zz", adapter(", requires=('no_such_package',)", target="ftk_zz_nowhere:do"))
    assert "0 targets resolve, adapter:zz left out: needs no_such_package" in check_plugin("zz")


def test_a_plugin_that_is_not_there_is_one_line(fake_plugin):
    fake_plugin("zz-long-name", adapter())
    with pytest.raises(
        CheckFailed, match=r"^zz-long-nmae: no plugin of that name is installed. Did you mean zz-long-name\?$"
    ):
        check_plugin("zz-long-nmae")


def test_the_options_of_a_library_are_checked_where_they_are_declared(fake_plugin):
    fake_plugin("zz-shared", f"import ftk\n@ftk.options\nclass Shared:\n    {RANK.replace('A.', '')}\n")
    fake_plugin("zz", adapter(", options=Shared", before="from ftk_zz_shared import Shared"))
    with pytest.raises(CheckFailed, match="zz_rank: give it a help text"):
        check_plugin("zz-shared")


def test_rows_of_ones_own_reach_the_converter(fake_plugin):
    lines = ["if 'mine' not in row:", "    raise ftk.DataError('mine: missing')", "return ftk.TextExample(row['mine'])"]
    fake_plugin("zz", converter(lines))
    assert "converter:zz: no sample row fits it" in check_plugin("zz")
    assert "converter:zz is pure over 1 rows" in check_plugin("zz", rows=[{"mine": "x"}])
    with pytest.raises(CheckFailed, match="takes none of the rows that were given"):
        check_plugin("zz", rows=[{"yours": "x"}])


def test_a_fake_plugin_is_gone_when_its_path_is(tmp_path):
    write_plugin(tmp_path, "zz", "import ftk_zz_more", files={"ftk_zz_more.py": ""}, version="2.0")
    with on_path(tmp_path):
        import ftk_zz

        assert ftk_zz.ftk_zz_more
        assert "ftk-zz" in {one.metadata["Name"] for one in distributions()}
    assert not {"ftk_zz", "ftk_zz_more"} & set(sys.modules)
    assert str(tmp_path) not in sys.path
    assert "ftk-zz" not in {one.metadata["Name"] for one in distributions()}


def test_run_in_writes_a_run_directory_with_the_settings_of_the_test(fake_plugin, tmp_path):
    before = "def train(run):\n    return {'rows': len(list(run.datasets('train')[0].open()))}\n"
    fake_plugin(
        "zz", declares("ftk_trainers", "Trainer('zz', target='ftk_zz:train', uses=('source', 'converter'))", before)
    )
    finished = run_in(tmp_path, stage="zz", seed=7)
    assert finished.folder == tmp_path / "out"
    assert finished.metrics == {"rows": 4}
    assert (finished.record["status"], finished.record["seed"]) == ("finished", 7)
    with pytest.raises(FtkError, match="the test: no_such_key: unknown option"):
        run_in(tmp_path, stage="zz", no_such_key=1)


def test_a_test_that_needs_what_is_not_installed_is_left_out(tmp_path):
    (tmp_path / "test_one.py").write_text(
        "import pytest\n\n\n"
        "@pytest.mark.needs('ftk-kernel', 'acme-nowhere')\ndef test_without():\n    raise AssertionError\n\n\n"
        "@pytest.mark.needs('ftk-kernel')\ndef test_with():\n    pass\n"
    )
    words = ["-rs", "--strict-markers", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    told = subprocess.run([sys.executable, "-m", "pytest", *words], capture_output=True, text=True, cwd=tmp_path).stdout
    assert "1 passed, 1 skipped" in told
    assert "acme-nowhere is not installed" in told
