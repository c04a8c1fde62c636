"""Abstentions and certified accuracy with and without groups: docs/groups-table.md.

From the committed votes of each bundle that ships, without a pass: the counts of a group are sums of the counts of its
classes. Groups are the bundle's own; for Fashion-MNIST, which has none, those below. `--results` is about another
results file. With --draw the votes are drawn for such questions, of some images of a data set:

    python scripts/groups_table.py --page docs/groups-table.md --force
    python scripts/groups_table.py --draw fashion-mnist --images 100 --results build/groups.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare_rules import STUDIES
from frame import USABLE, add_page, every, parsed, publish

import dualsmooth as ds
from dualsmooth.runtime.bundle.groups_file import read_groups
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import InputError
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

The same votes without groups, with them, and with sets of at most two or three classes: how many abstentions become an
answer, and what that costs in labels. A cell is the share of images (in %) whose answer is right and certified at L2
radius r or more; a group or set is right where it holds the true class. The second table of each part is about when the
class is in doubt: the class is asked where the selection votes would certify it at alpha = D, else its group; {doubt:g}
is what certificates use. Lost labels are images that would have got a certified label, and got a group. Written by
`python scripts/groups_table.py`; what is asked and proved stands in [groups.md](groups.md).

{parts}
"""
SECTION = """## {title}

{count} images ({source}), {budget} ({selection} selection votes), alpha = {alpha:g}, rule {rule}. Groups: {groups}.

{table}

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


def section(title: str, source: Path, groups: Groups, names: Sequence[str]) -> str:
    """What groups and sets answer on the votes of a results file."""
    results = load_results(source)
    terms = results[0].certificate.terms
    return SECTION.format(
        title=title, count=len(results), source=source.name, budget=terms.budget, selection=terms.budget.selection,
        alpha=terms.alpha, rule=terms.rule, groups=named(groups, names), table=table(results, groups),
        doubts=doubts(results, groups),
    )  # fmt: skip


def draw(bundle: str, out: Path, groups: Groups, data: str, images: int, budget: str) -> None:
    """Certify so many images with groups, for the results file `out`; resumable."""
    dataset = load_dataset(data)
    with ds.load(bundle) as smoother:
        evaluate(
            smoother, dataset, out, indices=range(0, USABLE, USABLE // images), budget=ds.parse_budget(budget),
            groups=groups, seed=0, progress=every(20),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="votes of --bundle (default: the committed ones of all that ship)")
    parser.add_argument("--bundle", default="fashion-mnist", help="a folder, or one that ships")
    parser.add_argument(
        "--groups", type=Path, metavar="FILE", help="default: the bundle's own, or those in this script"
    )
    parser.add_argument("--draw", action="store_true", help="first certify images with groups, into --results")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--budget", default="fixed:1000")
    add_page(parser, "--page")
    args = parsed(parser)
    if args.draw and not args.results:
        raise InputError("--draw without --results; name the results file to make")

    def told(bundle: str | Path) -> tuple[Groups, Sequence[str]]:
        made = ds.read_bundle(bundle)
        given: Mapping[str, Any] = read_groups(args.groups) if args.groups else FASHION
        return (made.groups if made.groups and not args.groups else Groups.resolved(given, made.classes)), made.classes

    if args.draw:
        draw(args.bundle, args.results, told(args.bundle)[0], args.data, args.images, args.budget)
    if args.results:
        parts = [section(args.results.name, args.results, *told(args.bundle))]
    else:
        ready = [study for study in STUDIES.values() if study.votes.exists()]
        parts = [section(study.title, study.votes, *told(study.bundle)) for study in ready]
    publish(PAGE.format(doubt=questions.DOUBT, parts="\n".join(parts).strip()), args.page)


if __name__ == "__main__":
    main()
