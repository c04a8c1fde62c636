"""What each choice of the recipe is worth: one short run a row, over the same classifiers and labels where possible.

python scripts/ablations.py --out runs/ablations            # resumable; about an hour on 2 idle cores
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
SHORT = {"labels.images": 10_000, "estimator.epochs": 6, "rounds": 1, "metrics.images": 500, "metrics.votes": 400}
ROWS: dict[str, dict[str, Any]] = {
    "the recipe, short": {},
    "hard labels": {"estimator.targets": "hard"},
    "soft labels, T = 0.2": {"estimator.temperature": 0.2},
    "soft labels, T = 1 (softmax of radii)": {"estimator.temperature": 1.0},
    "no regret weights": {"estimator.regret": 0.0, "estimator.balance": 0.5},
    "no regret weights, no rebalancing": {"estimator.regret": 0.0, "estimator.balance": 0.0},
    "no regret weights, strong rebalancing": {"estimator.regret": 0.0, "estimator.balance": 1.0},
    "consistency off": {"estimator.consistency": 0.0, "estimator.eta": 0.0, "estimator.copies": 1},
    "consistency strong (lambda = 20)": {"estimator.consistency": 20.0},
    "labels from 25 votes": {"labels.votes": 25},
    "labels from 400 votes": {"labels.votes": 400},
    "cross-fitted labels (2 folds)": {"labels.folds": 2},
    "levels 0.25, 1": {"sigmas": [0.25, 1.0]},
    "levels 0.25, 0.35, 0.5, 0.7, 1": {"sigmas": [0.25, 0.35, 0.5, 0.7, 1.0]},
    "two rounds": {"rounds": 2},
    "one classifier for all levels": {"classifier.experts": False},
}


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
    parser.add_argument("--threads", type=int, default=2)
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
    print(
        "\n| interval rule at r = | "
        + " | ".join(f"{r:g}" for r in RADII)
        + " | mean - envelope | mean, paper's rule |"
    )
    print("| --- |" + " ---: |" * (len(RADII) + 2))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
