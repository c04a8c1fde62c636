"""An engine that runs only when a test lets it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import dualsmooth as ds


class Gate:
    """An engine that runs a batch when it is told to, and records batch sizes."""

    def __init__(self, smoother: ds.Smoother, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.turns = threading.Semaphore(0)
        real = smoother.engine.logits

        def logits(name: str, batch: Any, sigma: float, width: int) -> Any:
            assert self.turns.acquire(timeout=60)
            self.sizes.append(len(batch))
            return real(name, batch, sigma, width)

        monkeypatch.setattr(smoother.engine, "logits", logits)

    def open(self, turns: int = 1_000_000) -> None:
        self.turns.release(turns)
