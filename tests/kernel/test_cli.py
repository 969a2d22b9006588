"""The command line: what each command prints, and that a mistake is one line with exit code 2."""

import json
import re
import subprocess
import sys

import pytest

PLUGIN = '''
    """A template and a command."""
    import click, ftk

    @ftk.options
    class MyOptions:
        my_size: int = ftk.option(3, help="How big.", minimum=1)
        my_token: str | None = ftk.option(None, help="Secret.", secret=True)

    @ftk.hookimpl
    def ftk_chat_templates():
        yield ftk.ChatTemplate("mine", user="[{content}]", summary="My template", options=MyOptions)

    @ftk.hookimpl
    def ftk_commands():
        yield ftk.Command("greet", target="ftk_mine:greet", summary="Say hello")

    @click.command()
    def greet():
        click.echo("hello")
'''


@pytest.fixture
def mine(fake_plugin):
    return fake_plugin("mine", PLUGIN, version="1.5")


def test_help_lists_own_commands_and_those_of_plugins(ftk_cli, mine):
    text = ftk_cli("--help").output
    for command in ("run", "plugins", "options", "schema", "doctor", "greet"):
        assert f"\n  {command} " in text
    assert "Say hello" in text
    assert ftk_cli("greet").output == "hello\n"
    assert "ftk-kernel 0." in ftk_cli("--version").output


FLAG = '''
    """A command that is a flag of run."""
    import click, ftk

    @ftk.hookimpl
    def ftk_commands():
        yield ftk.Command("weigh", target="ftk_flagged:weigh", run_flag=True, summary="Weigh it")
        yield ftk.Command("greet", target="ftk_flagged:weigh", summary="No flag")

    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def weigh(words):
        click.echo(" ".join(words))
'''


def test_a_command_may_be_a_flag_of_run(ftk_cli, fake_plugin):
    fake_plugin("flagged", FLAG)
    assert re.search(r"\nInstead of running:\n(  .*\n)*  --weigh +Weigh it\n", ftk_cli("run", "--help").output)
    for words in (["a.yaml", "--weigh"], ["--weigh", "a.yaml"]):
        assert ftk_cli("run", *words).output == "a.yaml\n"
    assert ftk_cli("run", "a.yaml", "--weigh", "--seed", "1").output == "a.yaml --seed 1\n"
    assert "a.yaml" in ftk_cli("run", "a.yaml", "--greet").stderr  # an unknown key, or a file that is not there
    assert ftk_cli("run", "a.yaml", "--weigh", "1").exit_code == 2


def test_an_unknown_command_is_one_line_with_a_guess(ftk_cli, mine):
    result = ftk_cli("gret")
    assert result.exit_code == 2
    assert "gret" in result.stderr
    assert "greet" in result.stderr
    assert "Traceback" not in result.output


def test_plugins_are_listed_for_people_and_for_programs(ftk_cli, mine):
    table = ftk_cli("plugins", "list").output
    assert "ftk-mine 1.5" in table
    assert "template:mine, command:greet" in table
    assert not [line for line in table.splitlines() if line.endswith(" ")]
    (entry,) = [one for one in json.loads(ftk_cli("plugins", "list", "--json").output) if one["name"] == "mine"]
    assert entry == {
        "name": "mine", "distribution": "ftk-mine", "version": "1.5", "state": "ok", "detail": "", "mend": "",
        "provides": ["template:mine", "command:greet"],
    }  # fmt: skip


def test_a_broken_plugin_is_a_line_with_what_mends_it(ftk_cli, fake_plugin):
    fake_plugin("bad", "import no_such_module_anywhere")
    result = ftk_cli("plugins", "list")
    assert result.exit_code == 0
    assert "broken" in result.output
    assert "bad: pip install -U ftk-bad" in result.output
    assert "No module named 'no_such_module_anywhere'" in ftk_cli("plugins", "show", "bad").output
    assert "Traceback" in ftk_cli("plugins", "show", "bad", "-v").output
    doctor = ftk_cli("doctor")
    assert "ftk-bad 0.1 is broken: ModuleNotFoundError" in doctor.output
    assert doctor.exit_code == 1


def test_show_tells_features_and_options(ftk_cli, mine):
    text = ftk_cli("plugins", "show", "ftk-mine").output
    for part in ("template:mine", "My template", "my_size", "How big.", "ftk_mine:greet"):
        assert part in text
    missing = ftk_cli("plugins", "show", "mime")
    assert missing.exit_code == 2
    assert "Did you mean mine?" in missing.stderr


def test_options_are_explained(ftk_cli, mine):
    assert "my_size" in ftk_cli("options").output
    one = ftk_cli("options", "my_size").output
    for part in ("How big.", "ftk-mine 1.5", "int", "at least 1", "template:mine"):
        assert part in one
    assert "(secret)" in ftk_cli("options", "my_token").output
    assert "mine" in ftk_cli("options", "template").output
    assert "my_size" in ftk_cli("options", "my_sizes").stderr
    listed = json.loads(ftk_cli("options", "--json").output)
    assert {"key": "my_size", "owner": "ftk-mine 1.5", "type": "int", "default": 3, "help": "How big."} in listed


def test_the_schema_accepts_good_configs_and_refuses_bad_ones(ftk_cli, mine):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(ftk_cli("schema").output)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert validator.is_valid({"model_name_or_path": "m", "my_size": 4, "template": "mine"})
    assert not validator.is_valid({"my_size": 0})
    assert not validator.is_valid({"my_size": "big"})
    assert not validator.is_valid({"my_sise": 1})
    assert "mine" in schema["properties"]["template"]["examples"]


def test_doctor_tells_versions_and_devices(ftk_cli):
    text = ftk_cli("doctor").output
    for part in ("python", "ftk-kernel", "cpu", "cores", "memory", "GiB", "gpu"):
        assert part in text


def test_a_disabled_plugin_is_listed_and_not_imported(ftk_cli, mine, monkeypatch):
    monkeypatch.setenv("FTK_DISABLE", "mine")
    assert "by FTK_DISABLE" in ftk_cli("plugins", "list").output
    assert "ftk_mine" not in sys.modules
    assert ftk_cli("greet").exit_code == 2


def test_completion_knows_the_commands():
    script = subprocess.run(
        [sys.executable, "-m", "ftk.cli"],
        env={"_FTK_COMPLETE": "bash_complete", "COMP_WORDS": "ftk plug", "COMP_CWORD": "1", "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "plain,plugins" in script.stdout


def test_nothing_that_lists_imports_a_library_of_the_field():
    code = (
        "import sys; from click.testing import CliRunner; from ftk.cli import main\n"
        "for words in (['--help'], ['plugins', 'list'], ['options'], ['schema'], ['doctor']):\n"
        "    CliRunner().invoke(main, words)\n"
        "heavy = {'torch', 'transformers', 'datasets', 'peft', 'trl', 'accelerate', 'bitsandbytes', 'vllm', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
