"""Certify every picture of a folder into a table: `python examples/folder_to_csv.py PHOTOS OUT.csv [BUNDLE [PASSES]]`.

A row for each picture, in the order of their names; for one that the bundle cannot take (of another size, damaged) it
says why. The certificates themselves go into OUT.jsonl, one a line, where `dualsmooth verify` checks them.
Needs `pip install -e '.[cpu,images]'` in the clone. Memory stays constant, however many pictures there are.
"""

from __future__ import annotations

import csv
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import dualsmooth as ds

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
COLUMNS = ("file", "class", "label", "radius", "confidence", "passes", "refused")


def certified(
    smoother: ds.Smoother, paths: Iterable[Path], budget: ds.Budget
) -> Iterator[tuple[Path, ds.Certificate | None, str]]:
    """Each path with its certificate, or with none and the reason. Pictures are read some way ahead of certificates, so
    `taken` remembers whose is next."""
    taken: deque[tuple[Path, str]] = deque()

    def images() -> Iterator[object]:
        for path in paths:
            try:
                image = smoother.check_image(path)
            except ds.InputError as error:
                taken.append((path, str(error)))
                continue
            taken.append((path, ""))
            yield image

    for certificate in smoother.certify_many(images(), budget=budget):
        while taken[0][1]:
            path, reason = taken.popleft()
            yield path, None, reason
        yield taken.popleft()[0], certificate, ""
    for path, reason in taken:
        yield path, None, reason


def main(folder: str, out: str, bundle: str = "fashion-mnist", passes: str = "2000") -> None:
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    beside = Path(out).with_suffix(".jsonl")
    with ds.load(bundle) as smoother, open(out, "x", newline="") as table, open(beside, "x") as certificates:
        rows = csv.DictWriter(table, COLUMNS)
        rows.writeheader()
        for path, certificate, reason in certified(smoother, paths, ds.Adaptive(int(passes))):
            row: dict[str, object] = {"file": path.name, "refused": reason}
            if certificate is not None:
                print(f"{path.name}: {certificate}")
                print(certificate.to_json(), file=certificates, flush=True)
                row |= {"class": certificate.class_name or "abstained", "label": certificate.label}
                row |= {"radius": certificate.radius, "confidence": 1 - certificate.alpha, "passes": certificate.passes}
            rows.writerow(row)
            table.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
