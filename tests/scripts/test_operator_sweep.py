"""ONNX's own operator tests through import: the same afterwards, or refused."""

from __future__ import annotations

import operator_sweep
import pytest


@pytest.mark.slow
def test_no_operator_computes_something_else_after_import() -> None:
    outcomes, wrong = operator_sweep.sweep()
    assert wrong == []
    assert sum(found["same"] for found in outcomes.values()) > 1500
    assert len(outcomes) > 40
