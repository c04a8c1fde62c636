"""`dualsmooth certify`: certificates of single images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dualsmooth.runtime.commands.options import (
    engine_options,
    examples,
    open_smoother,
    sampling_of,
    sampling_options,
    source_argument,
)
from dualsmooth.runtime.evaluation.outlook import Outlook, passes_between
from dualsmooth.runtime.rounding import confidence, shown
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.smoothing.settings import BUDGET, Settings
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.smoothing.view import label_words
from dualsmooth.runtime.statistics.budgets import AtRadius


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth certify fashion-mnist image.png",
        "dualsmooth certify fashion-mnist image.png --budget adaptive:100000:0.02 --json > certificate.json",
        "dualsmooth certify fashion-mnist image.png --budget at-radius:0.5:20000",
    )
    source_argument(parser)
    parser.add_argument("images", nargs="+", metavar="image", type=Path, help="a PNG, JPEG or NPY file")
    parser.add_argument("--json", action="store_true", help="one certificate a line, as JSON")
    engine_options(parser)
    sampling_options(parser, BUDGET)


def run(args: argparse.Namespace) -> int:
    settings = Settings.of(**sampling_of(args))
    smoother = open_smoother(args)
    between = passes_between(settings.terms(smoother.bundle), all_levels=False)
    images = [smoother.check_image(path) for path in args.images]
    outlook = Outlook(len(images), between, lambda text: print(text, file=sys.stderr))
    certificates = smoother.certify_with(images, settings, meter=Meter(watch=outlook.look))
    for path, certificate in zip(args.images, certificates, strict=True):
        outlook.finished(certificate.passes)
        print(certificate.to_json() if args.json else _sentence(path, smoother, certificate), flush=True)
    return 0


def _sentence(path: Path, smoother: Smoother, certificate: Certificate) -> str:
    cost = f"{certificate.passes} passes, confidence {confidence(certificate.alpha)}"
    budget = certificate.terms.budget
    if isinstance(budget, AtRadius):
        cost = f"certified at {budget.r:g}: {'yes' if certificate.radius >= budget.r else 'no'}, {cost}"
    cost += f", {certificate.seed.noise} noise" + (", fixed seed" if certificate.seed.fixed else "")
    about = f"; {certificate.artefact.about}" if certificate.artefact.about else ""
    if certificate.abstained:
        return f"{path}: abstained (sigma {certificate.sigma:g}, {cost})"
    name = label_words(certificate.answer, smoother.bundle.classes, certificate.group)
    parts = f"route radius {shown(certificate.route_radius, 4)}, class radius {shown(certificate.class_radius, 4)}"
    parts = "no router" if certificate.terms.sigma_e is None else parts
    radius = f"certified radius {shown(certificate.radius, 4)} (sigma {certificate.sigma:g}, {parts}, {cost})"
    return f"{path}: {name}, {radius}{about}"
