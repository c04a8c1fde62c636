"""Derive a results file of a changed bundle from that of the old one: append, resume after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.single_images import ImageLike
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.evaluation.results import Result, configuration_of, derived_from, load_results
from dualsmooth.runtime.evaluation.writer import ResultsWriter
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.deriver import PASSES, Deriver


def derive(
    deriver: Deriver,
    results: str | Path,
    dataset: Dataset,
    out: str | Path,
    *,
    passes: int = PASSES,
    seed: int | None = None,
    most: int | None = None,
    progress: Callable[[Result, int, int], None] | None = None,
) -> ResultsWriter:
    """Derive the certificate of each row of `results` (the first `most` ones), which are about the old bundle, and
    append them to `out`, with the confidence of their own row. Each one's true label is that of its row.

    Images that `out` already holds are left alone; what a kill has lost gets the noise that it had. Returns the
    (closed) writer. Raises `InputError`, also where the rows are not about the old bundle or the data set.
    """
    rows = load_results(results)[:most]
    bundle = deriver.new.bundle
    dataset = dataset.fitted(bundle.classes, bundle.input_shape, preprocessing=bundle.preprocessing)
    outside = [row.index for row in rows if row.index >= len(dataset)]
    if outside:
        raise InputError(f"{results} has image {outside[0]}, {dataset.name} has {len(dataset)}; pass its data set")
    noise = replace(rows[0].certificate.seed.noise, shared=False)
    writer = ResultsWriter(out, _configuration(deriver, rows[0], passes), Seed.make(seed, noise))
    try:
        todo = [row for row in rows if row.index not in writer.done]
        current = rows[0].index

        def items() -> Iterator[tuple[Certificate, ImageLike]]:
            nonlocal current
            for row in todo:
                current = row.index
                yield row.certificate, dataset.images[row.index]

        last = time.perf_counter()
        try:
            made = deriver.derive_many(items(), passes=passes, seed=writer.seed)
            for row, certificate in zip(todo, made, strict=True):
                now = time.perf_counter()
                seconds, last = max(0.0, round(now - last, 6)), now
                result = Result(row.index, row.true_label, row.dataset, seconds, certificate)
                writer.append(result)
                if progress:
                    progress(result, len(writer.done), len(rows))
        except (CertificateError, InputError) as error:
            raise InputError(f"{results}, image {current}: {error}") from error
    finally:
        writer.close()
    return writer


def _configuration(deriver: Deriver, row: Result, passes: int) -> dict[str, object]:
    """What must be the same for all rows of a file; see `results.configuration_of`."""
    old = row.certificate
    facts = {"old": {"manifest_sha256": deriver.old.bundle.manifest_sha256}, "passes": passes}
    same = ("dataset", "alpha", "rule", "route", "budget", "noise")
    stated = configuration_of({"dataset": row.dataset, "certificate": old.to_dict()})
    return {
        **{name: stated[name] for name in same},
        "version": 2,
        "manifest": deriver.new.bundle.manifest_sha256,
        "provider": deriver.new.engine.provider,
        "derived": derived_from(facts),
    }
