"""Confines every target to its own folder; writes build/fuzz.md after a run with DUALSMOOTH_FUZZ."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz import harness

TABLE = Path(__file__).resolve().parents[2] / "build" / "fuzz.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the inputs of a target may write; all else is noticed."""
    return harness.confine(tmp_path_factory.mktemp("fuzz"))


def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    if "DUALSMOOTH_FUZZ" in os.environ and harness.ROWS:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(harness.table(TABLE.read_text() if TABLE.is_file() else ""))
