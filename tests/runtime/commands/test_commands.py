"""Every command of the table: its contract, its help, and one line for what it cannot use."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from dualsmooth.cli import main
from dualsmooth.runtime import commands
from dualsmooth.runtime.commands import COMMANDS, Command, Row, command, options
from dualsmooth.runtime.datasets.formats import NAMES
from dualsmooth.runtime.engine.providers import PROVIDERS
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise.streams import NOISE_FORMS
from dualsmooth.runtime.statistics import budgets, routes, rules

FOLDER = Path(commands.__file__).parent
every = pytest.mark.parametrize("name", COMMANDS)


@every
def test_its_module_keeps_the_contract(name: str) -> None:
    module = command(name)
    for wanted in (Command.add_arguments, Command.run):
        found = getattr(module, wanted.__name__)
        assert list(found.__annotations__.values()) == list(wanted.__annotations__.values()), found
    assert (module.__doc__ or "").startswith(f"`dualsmooth {name}`: ")
    assert COMMANDS[name].help
    assert "\n" not in COMMANDS[name].help


@every
def test_its_help_and_its_refusal_of_unknown_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: dualsmooth {name} ")
    with pytest.raises(SystemExit) as end:
        main([name, "--no-such-option", "a", "b"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dualsmooth")
    assert line.endswith("--help")


@every
def test_its_help_has_examples_and_states_every_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What every option does, what it is unless given, and commands to start from, which `tests/docs` runs."""
    parser = argparse.ArgumentParser()
    command(name).add_arguments(parser)
    head, *examples = (parser.epilog or "").splitlines()
    assert head == "examples:"
    assert examples
    for line in examples:
        assert line.startswith(f"  dualsmooth {name}")
        words = shlex.split(re.sub(r" >.*", "", line))
        assert parser.parse_args(words[2:])
    for action in parser._actions:
        shown = action.option_strings or action.dest
        if action.help == argparse.SUPPRESS or action.dest == "help":
            continue
        assert action.help, f"{shown} has no help"
        value = (action.default, parser.get_default(action.dest))[action.default is None]
        if action.option_strings and action.nargs != 0 and not action.required:
            assert "default" in action.help, f"{shown} does not say what it is unless given"
        if isinstance(value, int | float) and not isinstance(value, bool) and value:
            stated = rf"default (%\(default\)s|{value:g}\b)|cores of this process"
            assert re.search(stated, re.sub(r"(?<=\d),(?=\d{3})", "", action.help)), shown


@every
def test_units_are_said(name: str) -> None:
    parser = argparse.ArgumentParser()
    command(name).add_arguments(parser)
    units = {
        "radii": "pixels in [0, 1]", "at_radii": "pixels in [0, 1]", "sigmas": "pixels in [0, 1]",
        "budget": "passes", "n": "passes", "alpha": "alpha", "seconds": "seconds",
    }  # fmt: skip
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and action.dest in units and name != "plan":
            assert units[action.dest] in action.help or "probability" in action.help, action.option_strings


@pytest.mark.parametrize("how", [["-m", "dualsmooth"], ["-m", "dualsmooth.cli"]])
def test_it_is_called_dualsmooth_however_it_is_started(how: list[str]) -> None:
    done = subprocess.run([sys.executable, *how, "certify", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: dualsmooth certify ")
    assert "\nexamples:\n  dualsmooth certify fashion-mnist image.png\n" in done.stdout


def test_every_file_is_a_row() -> None:
    found = {f"{commands.__name__}.{file.stem}" for file in FOLDER.glob("*.py")} - {
        f"{commands.__name__}.{stem}" for stem in ("__init__", "options")
    }
    assert found <= {row.module for row in COMMANDS.values()}


def test_no_command_imports_another() -> None:
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(commands.__name__):
                assert node.module == options.__name__, file


def test_the_table_alone_makes_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    code = (
        "import sys\nfrom dualsmooth.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "from dualsmooth.runtime.commands import COMMANDS\n"
        "assert not {row.module for row in COMMANDS.values()} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, row in COMMANDS.items():
        assert re.search(rf"^ +{name} +{re.escape(row.help)}$", done.stdout, re.M), name


@pytest.mark.parametrize("name", [name for name, row in COMMANDS.items() if row.extra])
def test_what_is_not_installed_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, name, Row("help", "no_such_package.module", COMMANDS[name].extra))
    assert main([name]) == 2
    fix = f"pip install 'dualsmooth[{COMMANDS[name].extra},cpu]'"
    assert capsys.readouterr().err == f"dualsmooth: {name} needs no_such_package; {fix}\n"
    assert main(["demo", "--images", "0"]) == 2  # others do not need it


def test_a_broken_module_of_ours_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "demo", Row("help", "no_such_package.module"))
    with pytest.raises(ModuleNotFoundError):
        main(["demo"])


def help_of(add: object, *given: object, **named: object) -> str:
    parser = argparse.ArgumentParser(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=1000))
    add(parser, *given, **named)  # type: ignore[operator]
    return parser.format_help()


def test_help_lists_what_the_tables_hold() -> None:
    sampling = help_of(options.sampling_options, budgets.Fixed(10))
    for text in (budgets.FORMS, rules.FORMS, routes.FORMS, NOISE_FORMS):
        assert text in sampling
    assert NAMES in help_of(options.dataset_options, required=True)
    assert all(name in help_of(options.engine_options) for name in PROVIDERS)
    assert routes.FORMS in help_of(import_module("dualsmooth.runtime.commands.report").add_arguments)


def test_the_forms_of_budgets_name_every_budget() -> None:
    made = (budgets.Fixed(10), budgets.Adaptive(10, 0.0), budgets.AtRadius(0.5), budgets.AtRadii((0.5, 1.0)))
    kinds = [form.partition(":")[0] for form in budgets.FORMS.replace(" or ", ", ").split(", ")]
    assert kinds == [str(budget).partition(":")[0] for budget in made]
    with pytest.raises(InputError, match="at-radii:R"):
        budgets.parse_budget("all")
