"""The batch size at which an engine is fastest: measured once on a machine, then remembered in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.engine.engine import Engine
from dualsmooth.runtime.engine.instruction_set import processor
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import cache_folder, write_atomically

AUTO = "auto"
CANDIDATES = (32, 64, 128, 256, 512, 1024)
MOST_VALUES = 1 << 26
"""Most values in a batch that is tried: 256 MB of noise."""
GOOD_ENOUGH = 0.97
"""The smallest batch that reaches this share of the best rate is taken: it wastes less at the end of a look."""
SECONDS = 0.3
"""How long each candidate is timed."""


def remembered(bundle: Bundle, engine: Engine, settings: object) -> int | None:
    """What `best_batch_size` measured here before, if it did; measures nothing."""
    return _read(_cache()).get(_key(bundle, engine, settings))


def best_batch_size(bundle: Bundle, opened: Callable[[int], Engine], settings: object) -> int:
    """The batch size for `bundle` on the engines that `opened` makes with `settings` (anything with a faithful text);
    measured unless this machine's cache knows it."""
    path = _cache()
    known = _read(path)
    engine = opened(CANDIDATES[0])
    key = _key(bundle, engine, settings)
    if key not in known:
        known[key] = measured(bundle, engine, opened)
        with suppress(InputError, OSError):  # without a cache it is measured again, that is all
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(known, indent=1) + "\n")
    return known[key]


def measured(bundle: Bundle, first: Engine, opened: Callable[[int], Engine]) -> int:
    """The smallest candidate whose passes per second are close to the best; `first` is the engine of the smallest."""
    values = int(np.prod(bundle.input_shape))
    rates: dict[int, float] = {}
    for size in CANDIDATES:
        if size > CANDIDATES[0] and size * values > MOST_VALUES:
            break
        rates[size] = _rate(bundle, first if size == CANDIDATES[0] else opened(size), size)
        if rates[size] < 0.8 * max(rates.values()):  # larger ones will not come back
            break
    return min(size for size, rate in rates.items() if rate >= GOOD_ENOUGH * max(rates.values()))


def _rate(bundle: Bundle, engine: Engine, size: int) -> float:
    """Passes per second of the classifier of the middle level, on one batch again and again."""
    level = len(bundle.sigmas) // 2
    batch = engine.xp.asarray(np.random.default_rng(0).random((size, *bundle.input_shape), np.float32))
    model, sigma, width = bundle.classifiers[level], bundle.sigmas[level], len(bundle.classes)
    engine.votes(model, batch, sigma, width)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < SECONDS and len(times) < 1000):
        start = time.perf_counter()
        engine.votes(model, batch, sigma, width)
        times.append(time.perf_counter() - start)
    return size / float(np.median(times))


def _cache() -> Path:
    return cache_folder() / "batch-sizes.json"


def _read(path: Path) -> dict[str, int]:
    """What the cache holds; nothing where it is missing or damaged."""
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: size for key, size in known.items() if type(size) is int and size in CANDIDATES}


def _key(bundle: Bundle, engine: Engine, settings: object) -> str:
    """One word for all that the answer depends on."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [os.cpu_count()]
    machine = [len(cores), platform.node(), processor()]
    facts = [bundle.manifest_sha256, engine.provider, engine.name, repr(settings), *machine]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
