"""docs/operations.md: what is printed there is what the commands print, and its formulas come to what they say."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise

import pytest
from documents import ROOT, blocks

from dualsmooth.cli import main

PAGE = ROOT / "docs" / "operations.md"
RESULTS = "docs/results/"


def test_the_page_prints_what_the_commands_print(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    found = list(blocks(PAGE))
    shown = 0
    for (language, commands), (_, printed) in pairwise(found):
        if language == "sh" and RESULTS in commands:
            for command in commands.splitlines():
                assert main(shlex.split(command)[1:]) == 0
            assert capsys.readouterr().out == printed
            shown += 1
    assert shown == PAGE.read_text().count("```text")


def test_formulas_are_right() -> None:
    found = re.findall(r"`([\d., x/()]+) = ([\d.,]+)`", PAGE.read_text())
    assert found
    for formula, stated in found:
        value = eval(formula.replace(",", "").replace("x", "*"), {"__builtins__": {}})
        digits = len(stated.partition(".")[2])
        assert f"{value:,.{digits}f}" == stated
