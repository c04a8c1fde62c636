"""Certified accuracy of every rule on the same votes: the table in the README, and docs/rules.md.

Certifies 500 Fashion-MNIST test images (every 16th of the first 8,000) with the shipped bundle, every level sampled in
full, and compares the rules offline. Resumable; about 20 million passes.

    python scripts/compare_rules.py --results build/all-levels.jsonl --page docs/rules.md
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from frame import USABLE, every, publish

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.curves import ORACLE, certified_radii, expand_rules, recomputed
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import Result, load_results
from dualsmooth.runtime.report import Curve, markdown_table, plot_curves
from dualsmooth.runtime.statistics.accuracy import RADII

PAGE = """# Rules on the same votes

{images} Fashion-MNIST test images (every {step}th of the first 8,000), the shipped bundle, N = {passes:,} votes of
every stage and level, alpha = 0.001. Certified accuracy in %. Written by `python scripts/compare_rules.py`.

`single` rows are classifiers trained for that level alone. `oracle` picks the best sigma of each image with its label
known: the limit of routing, which no one can issue.

{table}

The router of the interval rule sends images to {levels}.

## One bundle, several points between small and large radii

The route need not be the median: `route="quantile:Q"` is the smallest level below which at least Q of the estimator's
votes lie. Each is a dual classifier of its own, certified by the same theorem; none needs training. `dualsmooth report
… --rule frontier` draws them.

{frontier}

## Against the envelope

The envelope is the best single sigma at each radius, which no single classifier reaches everywhere. Differences in
points, each with the 95 % interval of a paired bootstrap over the images (the best sigma chosen anew in each resample).

{head}
{line}
{paper}
{interval}

The same against classifiers that were trained for one sigma by Gaussian augmentation alone (Cohen et al. 2019), with
the networks, images, N and alpha of the others ({rivals_name}):

{rivals}

{head}
{line}
{gaussian}

## What limits the interval rule

Images (in points) that the envelope's sigma certifies at r and the interval rule does not, by reason: the classifier at
the chosen level does not certify the label at r (wrong level), or it does, and the router does not (route radius); and
those that the interval rule certifies and the envelope's sigma does not.

{head}
{line}
{limits}
"""
GAUSSIAN = Path(__file__).parent.parent / "docs" / "results" / "fashion-mnist-gaussian-experts.jsonl"
RULES = ("single", "oracle", "multiscale", "paper", "interval")


def against_envelope(results: list[Result], rule: str, rivals: list[Result], resamples: int = 4_000) -> str:
    """Certified accuracy of `rule` minus that of the envelope of `rivals`, the best single sigma at each radius, in
    points. `rivals` are the same results, or those of other classifiers on the same images.

    Each with the 95 % interval of a paired bootstrap: images are resampled, the best sigma of each radius anew.
    """
    sigmas = rivals[0].certificate.terms.sigmas
    radii = [certified_radii(rivals, rule=name) for name in expand_rules(["single"], sigmas)]
    radii.append(certified_radii(results, rule=rule))
    *singles, ours = (np.stack([(r >= at) & (r > 0) for at in RADII]).astype(np.float64) for r in radii)
    draws = np.random.default_rng(0).multinomial(len(results), np.full(len(results), 1 / len(results)), resamples)
    weights = np.vstack([np.ones(len(results)), draws]).T / len(results)
    envelope = np.max([single @ weights for single in singles], axis=0)
    difference = 100 * (ours @ weights - envelope)
    low, high = np.percentile(difference[:, 1:], [2.5, 97.5], axis=1)
    cells = [f"{d:+.1f} ({a:+.1f} … {b:+.1f})" for d, a, b in zip(difference[:, 0], low, high, strict=True)]
    return _row(f"{rule} - envelope", cells)


def what_limits(results: list[Result]) -> str:
    """Where the interval rule loses to the envelope's single sigma: images that this sigma certifies at r and the
    interval rule does not (in points), by reason, and those that it wins."""
    sigmas = results[0].certificate.terms.sigmas
    outcomes = [result.certificate.recompute(rule="interval").outcome for result in results]
    right = np.array([o.label == r.true_label for o, r in zip(outcomes, results, strict=True)])
    radius = np.where(right, [o.radius for o in outcomes], -1.0)
    reach = np.where(right, [o.class_radius for o in outcomes], -1.0)
    singles = np.stack([certified_radii(results, rule=name) for name in expand_rules(["single"], sigmas)])
    rows: dict[str, list[float]] = {"won": [], "lost: wrong level": [], "lost: route radius": []}
    for at in RADII:
        at = max(at, 1e-9)
        best = singles[int(np.argmax((singles >= at).mean(axis=1)))] >= at
        lost = best & (radius < at)
        rows["won"].append(float((~best & (radius >= at)).mean()))
        rows["lost: wrong level"].append(-float((lost & (reach < at)).mean()))
        rows["lost: route radius"].append(-float((lost & (reach >= at)).mean()))
    return "\n".join(_row(name, [f"{100 * v:+.1f}" for v in values]) for name, values in rows.items())


def levels_used(results: list[Result]) -> str:
    """The share of images at each level, as the interval rule guesses the median route."""
    terms = results[0].certificate.terms
    used = [result.certificate.recompute(rule="interval").outcome.route for result in results]
    shares = np.bincount(used, minlength=len(terms.sigmas)) / len(results)
    return ", ".join(f"sigma {s:g} for {100 * share:.1f} %" for s, share in zip(terms.sigmas, shares, strict=True))


def _row(name: str, cells: Iterable[object]) -> str:
    return f"| {name} | " + " | ".join(map(str, cells)) + " |"


def curve_of(results: Sequence[Result], rule: str) -> Curve:
    if rule == ORACLE:
        return Curve.of(results, name=rule, source="", rule=rule)
    return Curve.of(recomputed(results, rule=rule), name=rule, source="")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--results", type=Path, required=True, help="results file, made or resumed")
    parser.add_argument("--passes", type=int, default=10_000)
    parser.add_argument("--step", type=int, default=16)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rivals", type=Path, default=GAUSSIAN, help="results of classifiers to compare with as well")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--page", type=Path, help="write the tables there, as Markdown")
    args = parser.parse_args()
    indices = range(0, USABLE, args.step)
    known = {result.index: result for result in load_results(args.rivals)}
    if missing := set(indices) - set(known):
        raise InputError(f"{args.rivals} lacks image {min(missing)}; pass a --step that it covers, or other --rivals")
    rivals = [known[index] for index in indices]
    sigmas = ds.read_bundle(args.bundle).sigmas
    results = load_results(args.results) if args.results.exists() else []
    if not set(indices) <= {r.index for r in results}:
        evaluate(
            ds.load(args.bundle, threads=args.threads),
            load_dataset("fashion-mnist"),
            args.results,
            indices=indices,
            budget=ds.Fixed(args.passes),
            seed=args.seed,
            all_levels=True,
            progress=every(10),
        )
        results = load_results(args.results)
    curves = [curve_of(results, rule) for rule in expand_rules(RULES, sigmas)]
    source = str(args.results)
    by_mode = recomputed(results, rule="interval", route="mode")
    curves.append(Curve.of(by_mode, name="interval, mode route", source=source))
    if {r.certificate.terms.edition for r in results} == {1}:
        curves.append(Curve.of(results, name="interval, as version 1 shared alpha", source=source))
    frontier = {name: certified_radii(results, rule=name) for name in expand_rules(["frontier"], sigmas)}
    page = PAGE.format(
        images=len(results),
        step=args.step,
        passes=args.passes,
        table=markdown_table({curve.name: curve.radii for curve in curves}),
        levels=levels_used(results),
        head=_row("at r =", map("{:g}".format, RADII)),
        line="| --- |" + " ---: |" * len(RADII),
        paper=against_envelope(results, "paper", results),
        interval=against_envelope(results, "interval", results),
        gaussian=against_envelope(results, "interval", rivals),
        rivals_name=args.rivals.name,
        rivals=markdown_table({name: certified_radii(rivals, rule=name) for name in expand_rules(["single"], sigmas)}),
        frontier=markdown_table(frontier),
        limits=what_limits(results),
    )
    publish(page, args.page)
    if args.plot:
        plot_curves(curves, args.plot, title=f"Fashion-MNIST, {len(results)} test images, N = {args.passes:,}")


if __name__ == "__main__":
    main()
