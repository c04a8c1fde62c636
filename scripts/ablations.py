"""What each choice of the recipe is worth: one short run a row, over the same classifiers and labels where possible.

python scripts/ablations.py --out runs/ablations --table docs/ablations.md   # resumable; about an hour
python scripts/ablations.py --out runs/ablations --only "the recipe, short;hard labels"

Everything is measured on the validation split that is carved from the training images.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

from dualsmooth.training import config_from, read_toml, train
from dualsmooth.training.metrics import RADII

CONFIG = Path(__file__).parent.parent / "configs" / "fashion-mnist.toml"
SHORT = {
    "classifier.epochs": 6,
    "labels.images": 8_000,
    "estimator.epochs": 3,
    "finetune.epochs": 2,
    "rounds": 1,
    "metrics.images": 500,
    "metrics.votes": 300,
}
VOTES = {"labels.radii": "votes", "labels.doubt": 0.1}
PLAIN = {"estimator.interval": 0.0}  # the paper's loss: what the rows that change it are compared with
ROWS: dict[str, dict[str, Any]] = {
    "the recipe, short": {},
    "labels from 100 votes, not margins": {**VOTES, "labels.votes": 100},
    "labels from 25 votes": {**VOTES, "labels.votes": 25},
    "labels from 400 votes": {**VOTES, "labels.votes": 400},
    "without the interval term": PLAIN,
    "… hard labels": {**PLAIN, "estimator.targets": "hard"},
    "… soft labels, T = 0.2": {**PLAIN, "estimator.temperature": 0.2},
    "… soft labels, T = 1 (softmax of radii)": {**PLAIN, "estimator.temperature": 1.0},
    "… consistency weak (lambda = 3, eta = 0.5)": {**PLAIN, "estimator.consistency": 3.0, "estimator.eta": 0.5},
    "… consistency strong (lambda = 20)": {**PLAIN, "estimator.consistency": 20.0, "estimator.eta": 0.5},
    "… no regret weights": {**PLAIN, "estimator.regret": 0.0},
    "… no regret weights, rebalancing (1/q)^0.5": {**PLAIN, "estimator.regret": 0.0, "estimator.balance": 0.5},
    "… no regret weights, rebalancing 1/q": {**PLAIN, "estimator.regret": 0.0, "estimator.balance": 1.0},
    "levels 0.25, 1": {"sigmas": [0.25, 1.0]},
    "levels 0.25, 0.35, 0.5, 0.7, 1": {"sigmas": [0.25, 0.35, 0.5, 0.7, 1.0]},
    "two rounds": {"rounds": 2},
    "one classifier for all levels": {"classifier.experts": False},
}


HEAD = """# What each choice of the recipe is worth

Certified accuracy (%) of the interval rule on {settings} a stage and level, alpha = 0.001, for short runs of
`configs/fashion-mnist.toml`: fewer epochs and labels (`SHORT` in the script), one seed. Fewer votes certify smaller
radii than in the README. The envelope is the best single sigma of the same run at each radius; "…" stands for
"without the interval term". Written by `python scripts/ablations.py`.

"""


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with dotted keys replaced."""
    result = copy.deepcopy(values)
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--from", dest="reuse", type=Path, help="a finished run of the recipe, for its classifiers")
    parser.add_argument("--only", help="names of rows, separated by semicolons")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", type=Path, help="write the table there, as Markdown")
    args = parser.parse_args()
    base = changed(read_toml(args.config), SHORT)
    names = args.only.split(";") if args.only else list(ROWS)
    lines = []
    for name in names:
        folder = args.out / "".join(c if c.isalnum() else "-" for c in name)
        first = args.out / "the-recipe--short"
        source = first if folder != first and (first / "run.json").is_file() else args.reuse
        config = config_from(changed(base, ROWS[name]), name)
        shares = source if config.classifier.experts else None
        metrics = train(config, folder, threads=args.threads, reuse=shares, command="scripts/ablations.py")
        certified = metrics["certified_accuracy"]
        singles = [curve for rule, curve in certified.items() if rule.startswith("single")]
        envelope = [max(values) for values in zip(*singles, strict=True)]
        gap = sum(a - b for a, b in zip(certified["interval"], envelope, strict=True)) / len(envelope)
        cells = " | ".join(f"{100 * value:.1f}" for value in certified["interval"])
        paper = sum(certified["paper"]) / len(envelope)
        lines.append(f"| {name} | {cells} | {100 * gap:+.1f} | {100 * paper:.1f} |")
        print(json.dumps({"row": name, "interval": certified["interval"], "envelope": envelope}), flush=True)
        settings = f"{base['metrics']['images']} validation images, N = {base['metrics']['votes']}"
        columns = " | ".join([*(f"{r:g}" for r in RADII), "mean - envelope", "mean, paper's rule"])
        table = [f"| interval rule at r = | {columns} |", "| --- |" + " ---: |" * (len(RADII) + 2), *lines]
        if args.table:
            args.table.write_text(HEAD.format(settings=settings) + "\n".join(table) + "\n", "utf-8")
    print("\n" + "\n".join(table))


if __name__ == "__main__":
    main()
