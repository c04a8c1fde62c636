"""What deriving an int8 bundle's certificates from fp32 votes costs and gives, against certifying it anew.

Exports an int8 bundle of the shipped one (calibrated on noisy training images), derives its certificates from the
committed votes of the fp32 bundle (500 Fashion-MNIST test images, N = 10,000, alpha = 0.001) with several numbers of
paired passes, and certifies it anew with N = 10,000 and with about as many passes as each derivation took. A second
table has no network in it: the bound that votes and pairs of given shares give. Resumable: run it again after a kill.

    python scripts/derive_table.py --work build/derive --out docs/derive.md --force
    python scripts/derive_table.py --work build/derive-trial --images 10
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from frame import USABLE, VOTES, add_page, every, machine, parsed, publish
from int8_accuracy import quantised
from scipy import special

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation.curves import recomputed
from dualsmooth.runtime.evaluation.derive import derive
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import Result, load_results
from dualsmooth.runtime.report.tables import accuracy_cells
from dualsmooth.runtime.smoothing.deriver import Deriver
from dualsmooth.runtime.statistics.accuracy import RADII
from dualsmooth.runtime.statistics.bounds import lower_bound, upper_bound
from dualsmooth.runtime.statistics.deriving import PAIRED_SHARE

ROOT = Path(__file__).parents[1]
PAIRED = (500, 1_000, 2_000)
SHARES = (0.6, 0.8, 0.9, 0.97, 0.99, 0.999)
LOST = (0.0, 0.001, 0.005, 0.02)
SEED, ALPHA = 20261126, 1e-3


def row(name: str, results: list[Result], passes: list[int]) -> str:
    """A line of the table: mean passes of an image, certified accuracy by radius, average certified radius."""
    radii = np.array([r.correct_radius for r in results])
    return f"| {name} | {sum(passes) / len(passes):,.0f} | {' | '.join(accuracy_cells(radii))} |"


def quantile(p: float) -> str:
    return f"{float(special.ndtri(p)):.2f}" if p > 0.5 else "–"


def exact_table(old: int, paired: int) -> list[str]:
    """Phi^-1 of the lower bound on p, derived / anew with as many passes, for shares of votes and of disagreements."""
    lines = ["| lost | " + " | ".join(f"p = {p:g}" for p in SHARES) + " |", "| ---: |" + " ---: |" * len(SHARES)]
    for lost in LOST:
        cells = []
        for p in SHARES:
            kept = float(lower_bound(round(p * old), old, (1 - PAIRED_SHARE) * ALPHA))
            gap = float(upper_bound(round(lost * paired), paired, PAIRED_SHARE * ALPHA))
            anew = float(lower_bound(round((p - lost) * 2 * paired), 2 * paired, ALPHA))
            cells.append(f"{quantile(kept - gap)} / {quantile(anew)}")
        lines.append(f"| {100 * lost:g} % | " + " | ".join(cells) + " |")
    return lines


def disagreements(results: list[Result]) -> str:
    """How often the two networks' votes differ, by stage, over all pairs."""
    found = {}
    for stage in ("estimator", "classifier"):
        differ = total = 0
        for result in results:
            derived = result.certificate.derived
            assert derived is not None
            for stream in (s for s in derived.pairs.looks if s.stage == stage):
                table = derived.pairs.table(stream)
                differ, total = differ + int(table.sum() - np.trace(table)), total + int(table.sum())
        found[stage] = f"{100 * differ / max(total, 1):.2f} % of the {stage}'s {total:,} pairs"
    return " and ".join(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the int8 bundle and its results")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--threads", type=int, default=0)
    add_page(parser)
    args = parsed(parser)
    args.work.mkdir(parents=True, exist_ok=True)
    fp32, int8 = (ds.load(path, threads=args.threads) for path in (SHIPPED_BUNDLE, quantised(args.work)))
    dataset, votes = (
        load_dataset("fashion-mnist"),
        list(recomputed(load_results(VOTES)[: args.images], rule="interval")),
    )
    indices = [r.index for r in votes]
    assert max(indices) < USABLE
    lines, first = [], []

    def anew(passes: int) -> None:
        out = args.work / f"anew-{passes}.jsonl"
        evaluate(
            int8, dataset, out, indices=indices, budget=ds.Fixed(passes), seed=SEED, progress=every(50, f"N {passes}: ")
        )
        found = [r for r in load_results(out) if r.index in indices]
        lines.append(row(f"int8, anew, N = {passes:,}", found, [r.certificate.passes for r in found]))

    lines.append(row("fp32 (the old votes), N = 10,000", votes, [r.certificate.passes for r in votes]))
    anew(10_000)
    for passes in PAIRED:
        out = args.work / f"derived-{passes}.jsonl"
        said = every(50, f"{passes} pairs: ")
        derive(Deriver(fp32, int8), VOTES, dataset, out, passes=passes, seed=SEED, most=args.images, progress=said)
        first = [r for r in load_results(out) if r.index in indices]
        cost = [r.certificate.derived.cost for r in first if r.certificate.derived]
        lines.append(row(f"**derived**, {passes:,} pairs", first, cost))
        anew(2 * passes)
    publish(page(args.images, lines, disagreements(first)), args.page)


def page(images: int, lines: list[str], differ: str) -> str:
    head = " | ".join(f"{r:g}" for r in RADII)
    new_line = "\n"
    return f"""{(ROOT / "docs" / "derive.md").read_text().split("## What it costs")[0].rstrip()}

## What it costs, and where it pays

What the same images certify, and for how many passes: derived from old votes, or anew. A cell is the share of images
(in %) whose label is right and certified at L2 radius r or more; compare rows of about as many passes.
{images} Fashion-MNIST test images; the shipped bundle and its int8 version, alpha = 0.001, rule interval. Written by
`python scripts/derive_table.py --images {images}` on {machine("onnxruntime")}.
Passes are those of one image, in the mean, without the old votes; a derived certificate has half of them on fp32.

| certified accuracy (%) at r = | passes | {head} | ACR |
| --- | ---: |{" ---: |" * (len(RADII) + 1)}
{new_line.join(lines)}

Votes differ on {differ}, at the largest number of
pairs.

- **It pays** where an event is far from certain, at small radii and on unsure images: there the old votes know p better
  than a few new ones could, and the networks hardly ever part. The more old votes there are, and the fewer
  disagreements, the more it pays.
- **It does not pay** for large radii. However well the networks agree, n pairs leave a doubt of ln(2 / alpha) / n, as
  if the new network alone had been asked n times; and each pair costs two passes, one of them on the slower network.
  Where large radii matter, certify anew with the passes that a derivation would take: the rows above have both.
- With as many pairs as there are old votes nothing is saved.

**By arithmetic.** Phi^-1 of the bound on one p (a radius is sigma times that): derived from 1,000 pairs / certified
anew with 2,000 passes, where a share p of the old votes is for the event, and a share `lost` of the pairs leaves it.
– : at most 1/2, no radius.

Old votes 10,000:

{new_line.join(exact_table(10_000, 1_000))}

Old votes 100,000:

{new_line.join(exact_table(100_000, 1_000))}

With 5,000 pairs / 10,000 passes, old votes 100,000:

{new_line.join(exact_table(100_000, 5_000))}
"""


if __name__ == "__main__":
    main()
