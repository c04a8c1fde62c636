"""Abstentions and certified accuracy with and without groups, of any results file: docs/groups.md, the measured part.

From committed votes, without a pass: the counts of a group are sums of the counts of its classes. Groups are those of
--groups (a bundle or a file; default: those of Fashion-MNIST below). With --draw the votes are drawn for such
questions, of some images of a data set:

    python scripts/groups_table.py --page docs/groups-table.md --force
    python scripts/groups_table.py --draw runtime/data/fashion-mnist --images 100 --results build/groups.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from frame import USABLE, VOTES, add_page, every, parsed, publish

import dualsmooth as ds
from dualsmooth.runtime.bundle.groups_file import read_groups
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation.curves import recomputed
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import Result, load_results
from dualsmooth.runtime.report.tables import accuracy_cells
from dualsmooth.runtime.statistics import questions
from dualsmooth.runtime.statistics.accuracy import RADII
from dualsmooth.runtime.statistics.groups import Groups

FASHION = {"upper body": [0, 2, 3, 4, 6], "footwear": [5, 7, 9]}
DOUBTS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.01)

PAGE = """# Groups: what they answer

{count} images of {dataset} ({source}), {budget}, alpha = {alpha:g}, rule {rule}: the same votes
without groups, with them, and with sets of at most two or three classes. Groups: {groups}.
A cell is the share of images (in %) whose answer is right and certified at L2 radius r or more; a group or set is right
where it holds the true class. Written by `python scripts/groups_table.py`; what is asked and proved stands in
[groups.md](groups.md).

{table}

## When the class is in doubt

The class is asked where the {selection} selection votes would certify it at alpha = D, else its group; {doubt:g} is
what certificates use. Lost labels: images that would have got a certified label, and got a group.

{doubts}
"""


def answers(results: Sequence[Result]) -> str:
    """How many labels, coarser answers and abstentions, each with how many of them are right."""
    made = [(r.certificate, r.true_label) for r in results]
    labels = [c.label == truth for c, truth in made if c.label is not None]
    coarse = [truth in c.answer for c, truth in made if len(c.answer) > 1]
    return f"{len(labels)} ({sum(labels)}) | {len(coarse)} ({sum(coarse)}) | {len(made) - len(labels) - len(coarse)}"


def accuracy(radii: list[float]) -> str:
    return " | ".join(accuracy_cells(np.array(radii)))


def table(results: Sequence[Result], groups: Groups) -> str:
    """A row for labels without groups, then for labels and for all answers of each way to ask."""
    ways = {
        "no groups": recomputed(results, groups=False),
        "groups": recomputed(results, groups=groups),
        "sets of two": recomputed(results, groups=False, at_most=2),
        "sets of three": recomputed(results, groups=False, at_most=3),
    }
    lines = [
        "| asked | right | labels (right) | groups or sets (right) | abstentions | "
        + " | ".join(f"r = {r:g}" for r in RADII) + " | ACR |",
        "| --- | --- |" + " ---: |" * (len(RADII) + 4),
    ]  # fmt: skip
    for name, made in ways.items():
        lines.append(f"| {name} | label | {answers(made)} | {accuracy([r.correct_radius for r in made])} |")
        if name != "no groups":
            lines.append(f"| {name} | label, group or set | | | | {accuracy([r.covered_radius for r in made])} |")
    return "\n".join(lines)


def doubts(results: Sequence[Result], groups: Groups) -> str:
    """What other values of `questions.DOUBT` would answer."""
    before = recomputed(results, groups=False)
    lines = [
        "| D | labels (right) | groups (right) | abstentions | lost labels | their mean radius |",
        "| ---: |" + " ---: |" * 5,
    ]
    usual = questions.DOUBT
    for doubt in DOUBTS:
        questions.DOUBT = doubt
        made = recomputed(results, groups=groups)
        lost = [
            b.certificate.radius
            for b, m in zip(before, made, strict=True)
            if b.certificate.label is not None and m.certificate.label is None
        ]
        lines.append(f"| {doubt:g} | {answers(made)} | {len(lost)} | {np.mean(lost) if lost else 0:.3f} |")
    questions.DOUBT = usual
    return "\n".join(lines)


def named(groups: Groups, names: Sequence[str]) -> str:
    return "; ".join(
        f"{part.name} ({', '.join(names[c] if names else str(c) for c in part.classes)})" for part in groups.parts
    )


def draw(bundle: Path, out: Path, groups: Mapping[str, Any], data: str, images: int, budget: str) -> None:
    """Certify so many images with groups, for the results file `out`; resumable."""
    dataset = load_dataset(data)
    with ds.load(bundle) as smoother:
        evaluate(
            smoother, dataset, out, indices=range(0, USABLE, USABLE // images), budget=ds.parse_budget(budget),
            groups=groups, seed=0, progress=every(20),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=VOTES)
    parser.add_argument("--groups", type=Path, metavar="BUNDLE|FILE")
    parser.add_argument("--draw", type=Path, metavar="BUNDLE", help="first certify images with groups, into --results")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--budget", default="fixed:1000")
    add_page(parser, "--page")
    args = parsed(parser)
    given: Mapping[str, Any] = FASHION if args.groups is None or args.groups.is_dir() else read_groups(args.groups)
    if args.draw:
        draw(args.draw, args.results, given, args.data, args.images, args.budget)
    results = load_results(args.results)
    terms = results[0].certificate.terms
    names = read_bundle(args.draw or args.groups or SHIPPED_BUNDLE).classes
    own = read_bundle(args.groups).groups if args.groups and args.groups.is_dir() else None
    groups = own or Groups.resolved(given, names)
    page = PAGE.format(
        count=len(results),
        dataset=results[0].dataset,
        source=args.results.name,
        budget=terms.budget,
        alpha=terms.alpha,
        rule=terms.rule,
        groups=named(groups, names),
        table=table(results, groups),
        selection=terms.budget.selection,
        doubt=questions.DOUBT,
        doubts=doubts(results, groups),
    )
    publish(page, args.page)


if __name__ == "__main__":
    main()
