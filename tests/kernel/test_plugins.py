"""Discovery: every way in which a plugin can be found, and that none of them is a crash.

Plugins are folders with a dist-info, as pip leaves them; the reference for what is installed is importlib.metadata.
"""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from ftk.errors import PluginError
from ftk.plugins import discover
from ftk.registry import Registry
from ftk.testing import on_path, write_plugin

TEMPLATE = """
import ftk

@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate("{name}", assistant="{{content}}{{eos}}", summary="Made up")
"""
ADAPTER = """
import ftk

@ftk.options
class Options:
    {key}: int = ftk.option(8, help="Made up.")

@ftk.hookimpl
def ftk_adapters():
    yield ftk.Adapter("{name}", target="nowhere:apply", options=Options, summary="Made up")
"""


def template(name="zz-first"):
    return TEMPLATE.format(name=name)


def adapter(name, key):
    return ADAPTER.format(name=name, key=key)


def record(distribution):
    found = [one for one in discover().records if one.distribution == distribution]
    assert len(found) == 1, found
    return found[0]


def error_of(distribution):
    one = record(distribution)
    assert (one.state, one.specs) == ("broken", ())
    assert one.error is not None
    assert "\n" not in one.detail
    return one.detail


def test_a_good_plugin_is_found_with_what_it_declares(fake_plugin):
    fake_plugin("zz-first", template(), version="1.5")
    one = record("ftk-zz-first")
    assert (one.name, one.version, one.module, one.state, one.who) == (
        "zz-first", "1.5", "ftk_zz_first", "ok", "ftk-zz-first 1.5",
    )  # fmt: skip
    assert [spec.id for spec in one.specs] == ["template:zz-first"]
    assert "zz-first" in Registry.discover().specs("template")


def test_everything_that_is_installed_is_found(fake_plugin):
    fake_plugin("zz-first", template())
    assert sorted(one.name for one in discover().records) == sorted(entry_points(group="ftk").names)


def test_distributions_come_in_sorted_order(fake_plugin):
    for name in ("zz-c", "zz-a", "zz-b"):
        fake_plugin(name, template(name))
    names = [one.distribution for one in discover().records]
    assert names == sorted(names)


def test_a_plugin_is_found_though_its_distribution_spells_its_name_otherwise(fake_plugin):
    fake_plugin("zz-first", template(), distribution="Acme_First")
    assert record("Acme_First").state == "ok"


@pytest.mark.parametrize("name", ["zz-loud", "ftk-zz-loud"])
@pytest.mark.parametrize("how", ["environment", "config"])
def test_a_disabled_plugin_is_never_imported(fake_plugin, monkeypatch, tmp_path, name, how):
    trace = tmp_path / "imported"
    fake_plugin("zz-loud", f"open({str(trace)!r}, 'w').close()\nraise RuntimeError('imported')")
    if how == "environment":
        monkeypatch.setenv("FTK_DISABLE", f"something-else, {name}")
    found = {one.distribution: one for one in discover([name] if how == "config" else []).records}
    assert found["ftk-zz-loud"].state == "disabled"
    assert ("FTK_DISABLE" if how == "environment" else "plugins.disable") in found["ftk-zz-loud"].detail
    assert not trace.exists()
    monkeypatch.delenv("FTK_DISABLE", raising=False)
    assert record("ftk-zz-loud").state == "broken"
    assert trace.exists()


@pytest.mark.parametrize(
    ("requires", "state"),
    [
        ("ftk-kernel>=0.1", "ok"),
        ("ftk-kernel>=0.0.1.0", "ok"),
        ("ftk-kernel", "ok"),
        ("", "ok"),
        ("ftk-kernel (>=0.1)", "ok"),
        ("ftk_kernel~=0.1", "ok"),
        ("ftk-kernel[text]>=0.1", "ok"),
        ("ftk-kernel-extras>=99", "ok"),
        ("ftk-kernel>=99", "incompatible"),
        ("Ftk.Kernel>=99", "incompatible"),
        ("ftk-kernel[text]>=99", "incompatible"),
        ("ftk-kernel<0.1", "incompatible"),
        ("ftk-kernel>=0.1,!=0.1.0", "incompatible"),
        ("ftk-kernel what", "incompatible"),
    ],
)
def test_the_kernel_it_needs_is_checked_before_it_is_imported(fake_plugin, tmp_path, requires, state):
    trace = tmp_path / "imported"
    fake_plugin("zz-first", f"open({str(trace)!r}, 'w').close()\n{template()}", requires=requires)
    one = record("ftk-zz-first")
    assert one.state == state
    assert trace.exists() == (state == "ok")
    if state == "incompatible":
        assert "this is 0." in one.detail
        assert one.mend == "pip install -U ftk-kernel ftk-zz-first"


HOOK = "import ftk\n@ftk.hookimpl\ndef ftk_adapters():\n    "
CLASS = "import ftk\n@ftk.options\nclass {}:\n    "
ZZ = "zz: int = ftk.option(1, help='x')\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
        ("raise ValueError('o' * 2000)", "ooo…"),
        (HOOK.replace("()", "(run)") + "yield", "ftk_adapters(run) Argument(s) {'run'} are declared"),
        ("import ftk\n@ftk.hookimpl\ndef ftk_run_started(model):\n    pass", "Argument(s) {'model'} are declared"),
        (HOOK.replace("adapters", "adapter") + "yield", "unknown hook ftk_adapter. Did you mean ftk_adapters?"),
        ("def ftk_adapters():\n    yield", "ftk_adapters lacks its marker: put @ftk.hookimpl above it"),
        (HOOK + "1 / 0\n    yield", "ZeroDivisionError"),
        (HOOK + "yield ftk.Trainer('x')", "yielded Trainer where Adapter"),
        (HOOK + "yield 'x'", "yielded str where Adapter is expected"),
        (HOOK + "yield ftk.Adapter('My Adapter')", "adapter:My Adapter: a name has lower case letters"),
        (HOOK + "yield ftk.Adapter('')", "a name has lower case letters"),
        (HOOK + "yield ftk.Adapter('x', banana=1)", "TypeError"),
        (HOOK + "yield ftk.Adapter('zz')\n    yield ftk.Adapter('zz')", "declares adapter:zz twice"),
        ("class Plain:\n    x = 1\n" + HOOK + "yield ftk.Adapter('zz', options=Plain)", "Plain is no option class"),
        (
            CLASS.format("A") + ZZ + CLASS.format("B") + ZZ + HOOK + "yield ftk.Adapter('zz', options=(A, B))",
            "declares option zz twice",
        ),
        (CLASS.format("A") + "zz: int = 1", "A.zz: declare it with ftk.option(default, help=...)"),
        (CLASS.format("A") + "zz: list = ftk.option([], help='x')", "use a tuple or None"),
    ],
)
def test_a_broken_plugin_is_a_state_and_the_others_work(fake_plugin, source, said):
    fake_plugin("zz-broken", source)
    fake_plugin("zz-first", template())
    assert said in error_of("ftk-zz-broken")
    assert record("ftk-zz-broken").mend == "pip install -U ftk-zz-broken"
    assert record("ftk-zz-first").state == "ok"
    assert not discover().manager.has_plugin("ftk-zz-broken:zz-broken")


def test_an_entry_point_without_its_module_is_broken(fake_plugin, tmp_path):
    fake_plugin("zz-first", template())
    (tmp_path / "installed" / "ftk_zz_first.py").unlink()
    assert "No module named 'ftk_zz_first'" in error_of("ftk-zz-first")


def test_a_missing_package_is_named_with_the_command_that_installs_it(fake_plugin):
    source = """
        import ftk

        @ftk.hookimpl
        def ftk_adapters():
            yield ftk.Adapter("zz-here", target="json:loads", summary="x")
            yield ftk.Adapter("zz-heavy", target="x:y", requires=("no_such_package",), extra="backend", summary="x")
    """
    fake_plugin("zz-heavy", source)
    one = record("ftk-zz-heavy")
    assert (one.state, one.detail) == ("needs", "needs no_such_package")
    assert one.mend == 'pip install "ftk-zz-heavy[backend]"'
    registry = Registry.discover()
    assert registry.find("adapter", "zz-here").name == "zz-here"
    with pytest.raises(PluginError, match=r'needs no_such_package. pip install "ftk-zz-heavy\[backend\]"'):
        registry.find("adapter", "zz-heavy")


def test_of_two_that_declare_one_name_neither_wins(fake_plugin):
    fake_plugin("zz-ours", template("zz-same") + '    yield ftk.ChatTemplate("zz-own")\n')
    fake_plugin("zz-theirs", template("zz-same"), distribution="acme-theirs", version="3.1")
    for distribution in ("ftk-zz-ours", "acme-theirs"):
        one = record(distribution)
        assert one.state == "conflict"
        assert "acme-theirs 3.1 and ftk-zz-ours 0.1" in one.detail
        assert one.mend == f"pip uninstall {distribution}"
    registry = Registry.discover()
    assert "zz-same" not in registry.specs("template")
    assert registry.find("template", "zz-own").name == "zz-own"  # only what is contested is gone
    with pytest.raises(PluginError) as caught:
        registry.find("template", "zz-same")
    assert str(caught.value) == (
        "template zz-same is declared by both acme-theirs 3.1 and ftk-zz-ours 0.1. Uninstall one"
    )


def test_three_that_declare_one_name_are_all_named(fake_plugin):
    for number in (1, 2, 3):
        fake_plugin(f"zz-{number}", template("zz-same"))
    assert record("ftk-zz-2").detail.endswith("ftk-zz-1 0.1 and ftk-zz-2 0.1 and ftk-zz-3 0.1")


def test_two_names_may_be_the_same_when_their_kinds_differ(fake_plugin):
    fake_plugin("zz-t", template("zz-same"))
    fake_plugin("zz-a", adapter("zz-same", "zz_rank"))
    assert record("ftk-zz-t").state == record("ftk-zz-a").state == "ok"


def test_an_option_that_two_declare_belongs_to_neither(fake_plugin):
    fake_plugin("zz-1", adapter("zz-1", "zz_rank"))
    fake_plugin("zz-2", adapter("zz-2", "zz_rank"))
    assert record("ftk-zz-1").detail == "option zz_rank is declared by both ftk-zz-1 0.1 and ftk-zz-2 0.1"
    assert record("ftk-zz-2").state == "conflict"
    registry = Registry.discover()
    assert "zz_rank" not in registry.options
    assert {"zz-1", "zz-2"} <= registry.specs("adapter").keys()
    assert "declared by both" in str(registry.unknown_option("zz_rank"))


def test_an_option_class_of_a_library_may_be_carried_by_several(fake_plugin):
    fake_plugin("zz-library", "import ftk\n@ftk.options\nclass Shared:\n    zz_rank: int = ftk.option(1, help='x')\n")
    carrier = f"from ftk_zz_library import Shared\n{HOOK}yield ftk.Adapter('{{}}', options=Shared)"
    fake_plugin("zz-1", carrier.format("zz-1"))
    fake_plugin("zz-2", carrier.format("zz-2"))
    registry = Registry.discover()
    assert registry.owner_of(registry.options["zz_rank"]).distribution == "ftk-zz-library"
    assert record("ftk-zz-1").state == record("ftk-zz-2").state == "ok"


def test_no_plugin_takes_over_an_option_of_the_kernel(fake_plugin):
    fake_plugin("zz-1", adapter("zz-1", "seed"))
    registry = Registry.discover()
    assert registry.owner_of(registry.options["seed"]).distribution == "ftk-kernel"
    assert registry.options["seed"].default == 42


def test_a_conflict_ends_when_one_is_disabled(fake_plugin, monkeypatch):
    fake_plugin("zz-1", template("zz-same"))
    fake_plugin("zz-2", template("zz-same"))
    monkeypatch.setenv("FTK_DISABLE", "zz-2")
    assert record("ftk-zz-1").state == "ok"
    assert "zz-same" in Registry.discover().specs("template")


def test_of_two_installations_of_one_distribution_the_first_on_the_path_counts(tmp_path):
    """What importlib.metadata and the import system both say."""
    write_plugin(tmp_path / "behind", "zz-first", template("zz-old"), version="1.0")
    write_plugin(tmp_path / "before", "zz-first", template("zz-new"), version="2.0", distribution="FTK_zz.first")
    with on_path(tmp_path / "behind"), on_path(tmp_path / "before"):
        found = [one for one in discover().records if one.module == "ftk_zz_first"]
        assert [one.version for one in found] == ["2.0"]
        assert [spec.name for spec in found[0].specs] == ["zz-new"]
        assert found[0].state == "ok"


def test_a_distribution_may_hold_several_plugins(fake_plugin):
    info = fake_plugin("zz-first", template(), files={"zz_more.py": template("zz-more")})
    points = "[ftk]\n# two\nzz-first = ftk_zz_first\nzz-more=zz_more\n"
    (info / "entry_points.txt").write_text(f"[console_scripts]\nzz = nowhere:main\n\n{points}\n[other]\nx = y\n")
    found = [one for one in discover().records if one.distribution == "ftk-zz-first"]
    assert [(one.name, one.state) for one in found] == [("zz-first", "ok"), ("zz-more", "ok")]


def test_strict_makes_trouble_an_error(fake_plugin, monkeypatch):
    monkeypatch.setenv("FTK_STRICT", "1")
    fake_plugin("zz-first", template())
    discover()
    fake_plugin("zz-broken", "1 / 0")
    fake_plugin("zz-future", template("zz-future"), requires="ftk-kernel>=99")
    with pytest.raises(PluginError) as caught:
        discover()
    assert str(caught.value).startswith(
        "FTK_STRICT=1: ftk-zz-broken 0.1 is broken: ZeroDivisionError: division by zero; "
    )
    assert "ftk-zz-future 0.1 is incompatible: needs ftk-kernel>=99, this is" in str(caught.value)
    monkeypatch.setenv("FTK_DISABLE", "zz-broken,zz-future")
    discover()


def test_a_name_that_is_missing_points_at_the_plugin_in_trouble(fake_plugin):
    fake_plugin("zz-broken", "1 / 0")
    with pytest.raises(PluginError) as caught:
        Registry.discover().find("adapter", "zz-broken")
    assert str(caught.value) == (
        "zz-broken belongs to ftk-zz-broken 0.1, which is broken: ZeroDivisionError: division by zero. "
        "pip install -U ftk-zz-broken"
    )


def test_finding_plugins_imports_neither_their_targets_nor_metadata_parsers(tmp_path):
    """The e-mail parser behind importlib.metadata costs more than a plugin."""
    write_plugin(tmp_path, "zz-first", adapter("zz-first", "zz_rank"), files={"nowhere.py": "raise SystemExit(9)"})
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from ftk.registry import Registry\n"
        "assert 'zz-first' in Registry.discover().specs('adapter')\n"
        "print(*sorted({'nowhere', 'pydantic', 'yaml', 'rich', 'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
