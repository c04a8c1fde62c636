"""`dualsmooth certify`: certificates of single images."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dualsmooth.runtime.commands.options import (
    engine_options,
    examples,
    numbers,
    open_smoother,
    sampling_of,
    sampling_options,
    source_argument,
)
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.outlook import Outlook, passes_between
from dualsmooth.runtime.rounding import confidence, shown
from dualsmooth.runtime.smoothing.bare import Facts, bundle_of, is_file, parse_pixels
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.smoothing.settings import BUDGET, RULE, Settings
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.smoothing.view import label_words
from dualsmooth.runtime.statistics.budgets import AtRadius


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth certify fashion-mnist image.png",
        "dualsmooth certify fashion-mnist image.png --budget adaptive:100000:0.02 --json > certificate.json",
        "dualsmooth certify fashion-mnist image.png --budget at-radius:0.5:20000",
        "dualsmooth certify a.onnx cat.png --sigma 0.25 --pixels 0..1 --json",
    )
    source_argument(parser)
    parser.add_argument("images", nargs="+", metavar="image", type=Path, help="a PNG, JPEG or NPY file")
    parser.add_argument("--json", action="store_true", help="one certificate a line, as JSON")
    engine_options(parser)
    sampling_options(parser, BUDGET)
    parser.add_argument(
        "--sigma", type=float, help="certify at this noise level alone: --rule single:SIGMA (default: none)"
    )
    _add_file(parser)


def _add_file(parser: argparse.ArgumentParser) -> None:
    """What an ONNX file in place of a bundle does not say itself."""
    file = parser.add_argument_group(
        "an ONNX file in place of a bundle", "a classifier as other tools write it, certified at --sigma (extra export)"
    )
    file.add_argument(
        "--pixels", metavar="FORM", help="what it takes for images in [0, 1]: 0..1 (that), 0..255, or MEAN/STD of "
        "(x - mean) / std, numbers with commas, one a channel; must be said (default: none)",
    )  # fmt: skip
    file.add_argument(
        "--classes", help="how many, or their names with commas, or a text file with one a line (default: as declared)"
    )
    file.add_argument("--input-shape", metavar="C,H,W", help="shape of its images (default: as declared)")
    file.add_argument("--layout", choices=("nchw", "nhwc"), help="nhwc: it takes channels last (default nchw)")
    file.add_argument(
        "--keep", metavar="BUNDLE", help="keep the bundle that is made of it, which verify needs to check files and "
        "votes; the same call makes the same one again (default: it is not kept)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.sigma is not None:
        if args.rule != RULE:
            raise InputError(f"--sigma {args.sigma} with --rule {args.rule}; pass one of them")
        args.rule = f"single:{args.sigma!r}"
    settings = Settings.of(**sampling_of(args))
    with _source(args):
        return _certify(args, settings)


@contextmanager
def _source(args: argparse.Namespace) -> Iterator[None]:
    """Put a bundle in the place of an ONNX file, for as long as it is needed. Raises `InputError`."""
    shape = args.input_shape and numbers("--input-shape", args.input_shape, int)
    facts = Facts(args.sigma, args.pixels and parse_pixels(args.pixels), args.classes, shape, args.layout)
    if not is_file(args.bundle):
        if args.keep is not None:
            raise InputError(
                f"--keep {args.keep} with {args.bundle}; it is for the bundle that is made of an ONNX file"
            )
        facts.require_none(args.bundle)
        yield
        return
    with tempfile.TemporaryDirectory(prefix="dualsmooth-file-") as folder:
        args.bundle = str(bundle_of(args.bundle, args.keep or Path(folder) / "bundle", facts).path)
        yield


def _certify(args: argparse.Namespace, settings: Settings) -> int:
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
        left = certificate.outcome.unsettled
        return f"{path}: abstained: the votes do not settle {left} (sigma {certificate.sigma:g}, {cost})"
    name = label_words(certificate.answer, smoother.bundle.classes, certificate.group)
    parts = f"route radius {shown(certificate.route_radius, 4)}, class radius {shown(certificate.class_radius, 4)}"
    parts = "no router" if certificate.terms.sigma_e is None else parts
    radius = f"certified radius {shown(certificate.radius, 4)} (sigma {certificate.sigma:g}, {parts}, {cost})"
    return f"{path}: {name}, {radius}{about}"
