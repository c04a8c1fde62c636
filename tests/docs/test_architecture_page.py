"""docs/architecture.md shows diffs that apply to the code as it is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
DIFFS = dict(re.findall(r"^### ([^\n]*)\n(?:(?!^### ).)*?^```diff\n(.*?)^```$", PAGE, re.M | re.S))


def test_each_kind_has_its_example() -> None:
    kinds = ("rule", "budget", "provider", "data set format", "noise generator", "command", "objective", "network")
    assert all(any(title.endswith(kind) for title in DIFFS) for kind in kinds)


@pytest.mark.parametrize("title", DIFFS)
def test_the_diff_applies(title: str) -> None:
    command = ["git", "apply", "--check", "-C1", "-"]
    done = subprocess.run(command, input=DIFFS[title], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_files_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"`((?:runtime|export|training|tests|docs)/[\w/.-]+)`", PAGE))
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]
