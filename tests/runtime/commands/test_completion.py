"""Shells complete commands and options, as argcomplete asks for them, and as a real bash does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dualsmooth.cli import main
from dualsmooth.runtime.commands import COMMANDS
from dualsmooth.runtime.commands.completion import SHELLS

pytest.importorskip("argcomplete")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    program = tmp_path / "dualsmooth"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom dualsmooth.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    return tmp_path


def completed(line: str, programs: Path) -> set[str]:
    """What the protocol of argcomplete answers for a cursor at the end of `line`."""
    out = programs / "answer"
    env = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(out), "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)),
    }  # fmt: skip
    subprocess.run([programs / "dualsmooth"], env=os.environ | env, check=False)
    return {word.strip() for word in out.read_text().split("\n")}


def test_commands_and_options_are_completed(programs: Path) -> None:
    assert set(COMMANDS) <= completed("dualsmooth ", programs)
    assert completed("dualsmooth ev", programs) == {"evaluate"}
    assert {"--at-radii", "--all-levels", "--alpha"} <= completed("dualsmooth evaluate --a", programs)
    assert completed("dualsmooth completion ", programs) >= set(SHELLS)
    assert {"local", "ray"} <= completed("dualsmooth evaluate b --engine ", programs)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_takes_its_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "dualsmooth" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        done = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_real_bash_completes(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    (programs / "script").write_text(capsys.readouterr().out)
    ask = """
        source ./script
        COMP_LINE="dualsmooth ver"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=(dualsmooth ver); COMP_CWORD=1; COMP_TYPE=9
        "$(complete -p dualsmooth | sed 's/.*-F \\([^ ]*\\).*/\\1/')" dualsmooth ver dualsmooth
        printf '%s' "${COMPREPLY[@]}"
    """
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", ask], cwd=programs, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "verify", done.stderr


def test_without_the_library_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "argcomplete.shell_integration", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'dualsmooth[terminal]'" in capsys.readouterr().err
