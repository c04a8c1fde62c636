"""What each choice of the recipe is worth: one short run a row, over the same classifiers and labels where possible.

python scripts/ablations.py --out runs/ablations --table docs/ablations.md   # resumable; about an hour
python scripts/ablations.py --out runs/ablations --only "the recipe, short;hard labels"

Everything is measured on the validation split that is carved from the training images.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from frame import add_page, parsed

from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.statistics.accuracy import RADII
from dualsmooth.runtime.statistics.routes import MEDIAN
from dualsmooth.runtime.statistics.rules.single import Single
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, SELECTION, Stage, Stream, Tally
from dualsmooth.training import Config, config_from, read_toml, train
from dualsmooth.training.data import load_training_data
from dualsmooth.training.networks.network import Network
from dualsmooth.training.run.record import load_run
from dualsmooth.training.stages.labels import voter_of
from dualsmooth.training.stages.metrics import SELECTED, summary

CONFIG = Path(__file__).parent.parent / "configs" / "fashion-mnist.toml"
SHORT = {
    "classifier.epochs": 6,
    "classifier.batch_size": 256,
    "classifier.lr": 3e-3,
    "classifier.objective": {"kind": "gaussian"},
    "labels.images": 12_000,
    "finetune.epochs": 2,
    "rounds": 1,
    "metrics.images": 1,  # measured here, with more votes
    "metrics.votes": 1,
}
IMAGES, PASSES = 400, 2_000
VOTES = {"labels.radii": "votes", "labels.doubt": 0.1}
PLAIN = {"estimator.interval": 0.0}  # the paper's loss: what the rows that change it are compared with
ROWS: dict[str, dict[str, Any]] = {
    "the recipe, short": {},
    "narrow steps in the interval term (0.15)": {"estimator.softness": 0.15},
    "without the interval term": PLAIN,
    "… hard labels": {**PLAIN, "estimator.targets": "hard"},
    "… soft labels, T = 0.2": {**PLAIN, "estimator.temperature": 0.2},
    "… soft labels, T = 1 (softmax of radii)": {**PLAIN, "estimator.temperature": 1.0},
    "… consistency weak (lambda = 3, eta = 0.5)": {**PLAIN, "estimator.consistency": 3.0, "estimator.eta": 0.5},
    "… consistency strong (lambda = 20)": {**PLAIN, "estimator.consistency": 20.0, "estimator.eta": 0.5},
    "… no regret weights": {**PLAIN, "estimator.regret": 0.0},
    "… no regret weights, rebalancing (1/q)^0.5": {**PLAIN, "estimator.regret": 0.0, "estimator.balance": 0.5},
    "… no regret weights, rebalancing 1/q": {**PLAIN, "estimator.regret": 0.0, "estimator.balance": 1.0},
    "labels from 100 votes, not margins": {**VOTES, "labels.votes": 100},
    "labels from 25 votes": {**VOTES, "labels.votes": 25},
    "levels 0.25, 1": {"sigmas": [0.25, 1.0]},
    "one classifier for all levels": {"classifier.experts": False},
    "two rounds": {"rounds": 2},
    "levels 0.25, 0.35, 0.5, 0.7, 1": {"sigmas": [0.25, 0.35, 0.5, 0.7, 1.0]},
    "labels from 400 votes": {**VOTES, "labels.votes": 400},
}


HEAD = """# What each choice of the recipe is worth

What each row of settings certifies, so that rows may be compared. A cell is the share of validation images (in %) whose
label is right and certified at L2 radius r or more by the interval rule: {settings} a stage and
level, alpha = 0.001. Short runs of `configs/fashion-mnist.toml` (`SHORT` in the script: Gaussian augmentation instead
of consistency for the experts, fewer epochs and labels), one seed. Fewer votes certify smaller radii than in the
README. The envelope is the best single sigma of the same run at each radius. Routes are the shares of the levels, the
lowest first: 0 / 0 / 100 is a router that has collapsed, the largest sigma alone by another name. "…" stands for
"without the interval term". What consistency does for the experts is in [rules.md](rules.md). Written by
`python scripts/ablations.py`.

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


def measured(run: Path, config: Config, folder: Path) -> dict[str, Any]:
    """The `summary` of a run on the first validation images; the votes of a network are drawn once, whatever runs use
    it, and kept in `folder`."""
    data, networks = load_training_data(config), load_run(run)
    images, labels = np.asarray(data.validation_images[:IMAGES]), data.validation_labels[:IMAGES]
    sources: list[tuple[Network | Path, float, Stage, int]] = [(networks.estimator, config.sigma_e, ESTIMATOR, 0)]
    sources += [(n, s, CLASSIFIER, k) for k, (n, s) in enumerate(zip(networks.classifiers, config.sigmas, strict=True))]
    tallies = [Tally(len(data.classes), len(config.sigmas)) for _ in images]
    for network, sigma, stage, level in sources:
        assert isinstance(network, Network)
        drawn = votes_of(network, sigma, images, folder)
        for tally, looks in zip(tallies, drawn, strict=True):
            for purpose, counts in zip((SELECTION, ESTIMATION), looks, strict=True):
                tally.record(Stream(stage, level, purpose), counts)
    return summary(tallies, labels, config)


def votes_of(network: Network, sigma: float, images: npt.NDArray[np.uint8], folder: Path) -> npt.NDArray[np.int64]:
    """Selection votes and bounded votes [N,2,classes] of a network on images [N,C,H,W], from `folder` where known."""
    weights = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    path = folder / f"{hashlib.sha256(weights).hexdigest()[:16]}-{sigma:g}.npy"
    if not path.exists():
        voter, generator = voter_of(network, images.shape[1:]), np.random.Generator(np.random.SFC64(0))
        parts = [images[start : start + 8] for start in range(0, len(images), 8)]
        drawn = [[voter.votes_of_many(part, sigma, n, generator) for n in (SELECTED, PASSES)] for part in parts]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate([np.stack(looks, axis=1) for looks in drawn]))
    return np.asarray(np.load(path), np.int64)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--from", dest="reuse", type=Path, help="a finished run of the recipe, for its classifiers")
    parser.add_argument("--only", help="names of rows, separated by semicolons")
    parser.add_argument("--threads", type=int, default=1)
    add_page(parser, "--table", "write the table there, as Markdown")
    args = parsed(parser)
    base = changed(read_toml(args.config), SHORT)
    recipe = config_from(base, str(args.config))
    names = args.only.split(";") if args.only else list(ROWS)
    lines = []
    for name in names:
        folder = args.out / "".join(c if c.isalnum() else "-" for c in name)
        first = args.out / "the-recipe--short"
        source = first if folder != first and (first / "run.json").is_file() else args.reuse
        config = config_from(changed(base, ROWS[name]), name)
        shares = source if config.classifier == recipe.classifier else None
        train(config, folder, threads=args.threads, reuse=shares, command="scripts/ablations.py")
        found = measured(folder, config, args.out / "votes")
        certified = found["certified_accuracy"]
        routes = " / ".join(f"{100 * share:.0f}" for share in found["routes"][MEDIAN])
        singles = [certified[rule] for rule in Single.all_named(config.sigmas)]
        envelope = [max(values) for values in zip(*singles, strict=True)]
        gap = sum(a - b for a, b in zip(certified["interval"], envelope, strict=True)) / len(envelope)
        cells = " | ".join(f"{100 * value:.1f}" for value in certified["interval"])
        paper = sum(certified["paper"]) / len(envelope)
        lines.append(f"| {name} | {cells} | {100 * gap:+.1f} | {100 * paper:.1f} | {routes} |")
        print(json.dumps({"row": name, "interval": certified["interval"], "envelope": envelope}), flush=True)
        settings = f"{IMAGES} validation images, N = {PASSES:,}"
        columns = " | ".join([*(f"{r:g}" for r in RADII), "mean - envelope", "mean, paper's rule", "routes (%)"])
        table = [f"| interval rule at r = | {columns} |", "| --- |" + " ---: |" * (len(RADII) + 3), *lines]
        if args.page:
            write_atomically(args.page, HEAD.format(settings=settings) + "\n".join(table) + "\n")
    print("\n" + "\n".join(table))


if __name__ == "__main__":
    main()
