"""Certify a data set: append to a results file, resume after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dualsmooth.runtime.budgets import Budget
from dualsmooth.runtime.datasets import Dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.noise import Seed
from dualsmooth.runtime.results import Result, ResultsWriter
from dualsmooth.runtime.smoother import Smoother


def evaluate(
    smoother: Smoother,
    dataset: Dataset,
    out: str | Path,
    *,
    indices: Sequence[int],
    alpha: float = 1e-3,
    budget: Budget | None = None,
    rule: str = "interval",
    route: str | None = None,
    seed: int | None = None,
    all_levels: bool = False,
    progress: Callable[[Result, int, int], None] | None = None,
) -> ResultsWriter:
    """Certify `dataset.images[indices]` and append each result to `out` as soon as it is there; each with confidence
    1 - alpha of its own. Indices that `out` already holds are left alone. `progress` gets each result, how many are
    done and how many there are. Returns the (closed) writer. Raises `InputError`.
    """
    outside = [i for i in indices if not 0 <= i < len(dataset)]
    if outside:
        raise InputError(f"index {outside[0]} is outside of {dataset.name}; expected 0 to {len(dataset) - 1}")
    classes = len(smoother.bundle.classes)
    if len(dataset) and not 0 <= dataset.labels.min() <= dataset.labels.max() < classes:
        raise InputError(f"{dataset.name} has labels up to {dataset.labels.max()}; the bundle has {classes} classes")
    terms = smoother.terms(alpha=alpha, budget=budget, rule=rule, route=route)
    configuration = {
        "dataset": dataset.name,
        "alpha": terms.alpha,
        "rule": terms.rule,
        "route": terms.route_kind,
        "budget": str(terms.budget),
        "manifest": smoother.bundle.manifest_sha256,
        "provider": smoother.engine.provider,
        "seed": Seed.make(seed).to_dict()["entropy"] if seed is not None else None,
    }
    writer = ResultsWriter(out, configuration)
    todo = [i for i in indices if i not in writer.done]
    finished = len(indices) - len(todo)
    stream = smoother.certify_many(
        (dataset.images[i] for i in todo),
        alpha=alpha,
        budget=budget,
        rule=rule,
        route=route,
        seed=seed,
        indices=todo,
        all_levels=all_levels,
    )
    try:
        last = time.perf_counter()
        for index, certificate in zip(todo, stream, strict=True):
            now = time.perf_counter()
            result = Result(index, int(dataset.labels[index]), dataset.name, round(now - last, 6), certificate)
            writer.append(result)
            last, finished = now, finished + 1
            if progress:
                progress(result, finished, len(indices))
    finally:
        writer.close()
    return writer
