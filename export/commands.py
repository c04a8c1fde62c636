"""`dualsmooth export`: a run directory, a bundle, ONNX files or checkpoints to a bundle. Imports torch late."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualsmooth.export.onnx.normalisation import Normalisation, check_statistics
from dualsmooth.export.roles import ROLES
from dualsmooth.runtime.bundle.describing import size
from dualsmooth.runtime.bundle.groups_file import read_groups
from dualsmooth.runtime.bundle.preprocessing import RESAMPLING
from dualsmooth.runtime.bundle.reading import bundle_folder
from dualsmooth.runtime.bundle.shipped import SHIPPED_NAMES
from dualsmooth.runtime.commands.options import examples
from dualsmooth.runtime.datasets.class_names import read_class_names
from dualsmooth.runtime.datasets.formats import NAMES
from dualsmooth.runtime.errors import InputError, one_of
from dualsmooth.runtime.noise.levels import require_levels, require_unit_scale

if TYPE_CHECKING:
    from dualsmooth.export.checks.agreement import Pictures
    from dualsmooth.runtime.bundle.reading import Bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth export runs/fashion --out bundles/fashion",
        "dualsmooth export fashion-mnist --out bundles/int8 --precision int8 --calibration fashion-mnist",
        "dualsmooth export runs/fashion --with runs/second --out bundles/two",
        "dualsmooth export --estimator router.onnx --classifier a.onnx --classifier b.onnx --sigmas 0.25,1.0 "
        "--classes 10 --out bundles/onnx",
    )
    parser.description = (
        "Export a finished run, another bundle (to change its precision, or to add classifiers) or existing ONNX files "
        "as a bundle: ONNX files, compared with what they come from, manifest.json and a model card."
    )
    parser.add_argument(
        "path",
        nargs="?",
        metavar="SOURCE",
        help=f"run directory of `dualsmooth train`, or a bundle ({SHIPPED_NAMES}: one that ships)",
    )
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="directory to make; must not exist, or be empty")
    parser.add_argument(
        "--resize", metavar="SIDE",
        help="take pictures of any size: their shorter side becomes SIDE pixels, e.g. 256 (or they become "
        "HEIGHT,WIDTH), and the middle of the networks' size is cut out (default: as in a run on folders of "
        "photos; else other sizes are refused)",
    )  # fmt: skip
    parser.add_argument("--resampling", help=f"how --resize does it: {one_of(RESAMPLING)} (default bilinear)")
    _add_precision(parser)
    parser.add_argument("--data-dir", type=Path, help="folder of the data set's files (default: $DUALSMOOTH_DATA)")
    parser.add_argument(
        "--groups", type=Path, metavar="FILE", help="named sets of classes that may answer in place of a label, JSON "
        "or TOML: name to classes (default: those of SOURCE)",
    )  # fmt: skip
    parser.add_argument(
        "--sure", metavar="SHARES", help="for each sigma above the smallest, the softmax from which on a vote is sure, "
        "with commas: rule sure:P counts those (default: those of SOURCE)",
    )  # fmt: skip
    parser.add_argument(
        "--with", action="append", default=[], dest="others", metavar="SOURCE",
        help="a bundle, a run, or RUN=SIGMA,… whose classifiers vote beside those of SOURCE: at each level that both "
        "have, the mean of their logits; may be repeated (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--report",
        metavar="DATASET",
        help="also certify some of its test images with fp32 and with the new precision (default: none)",
    )
    parser.add_argument("--report-images", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--report-passes", type=int, default=1000, help="passes a stage and level (default 1000)")
    _add_files(parser)
    parser.set_defaults(run=run)


def _add_precision(parser: argparse.ArgumentParser) -> None:
    """Which precision, and what it takes."""
    parser.add_argument("--precision", default="fp32", help="fp32 (default), fp16, bf16 or int8")
    parser.add_argument(
        "--calibration", metavar="DATASET",
        help=f"its training images calibrate int8 and measure the agreement, under noise: {NAMES} (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--floor", type=float, help="least arg-max agreement with fp32 at any level (default: by precision)"
    )
    parser.add_argument("--quantise-ends", action="store_true", help="int8: the first and last layers too")
    parser.add_argument(
        "--reduce-range", action="store_true",
        help="int8: weights of 7 bits, whose sums do not saturate on processors without int8 dot products",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="export although the agreement is below the floor")


def _add_files(parser: argparse.ArgumentParser) -> None:
    """The options that say what files of networks do not say themselves."""
    files = parser.add_argument_group("existing ONNX files, in place of SOURCE")
    files.add_argument(
        "--estimator",
        metavar="FILES",
        help="ONNX file of the estimator; several, with commas, are averaged (default: none, for one sigma: no router)",
    )
    files.add_argument(
        "--classifier",
        action="append",
        metavar="FILES",
        help="ONNX file of the classifier: once, or once for each sigma (default: none)",
    )
    files.add_argument(
        "--sigmas", help="noise levels, pixels in [0, 1], ascending, e.g. 0.25,0.5,1.0, or one (default: none)"
    )
    files.add_argument("--sigma-e", type=float, help="the estimator's noise level (default: the largest of the sigmas)")
    files.add_argument(
        "--classes", help="how many, or their names with commas, or a text file with one a line (default: none)"
    )
    files.add_argument("--input-shape", metavar="C,H,W", help="default: what the estimator's file declares")
    for role in ROLES:
        files.add_argument(f"--{role}-mean", metavar="NUMBERS", help=f"put (x - mean) / std in front of the {role}: "
                           "numbers with commas, one a channel, for images in [0, 1] (default: none)")  # fmt: skip
        files.add_argument(f"--{role}-std", metavar="NUMBERS", help=f"as --{role}-mean (default: none)")
    for role in ROLES:
        files.add_argument(
            f"--{role}-arch", metavar="NAME", help=f"the {role}'s files are PyTorch checkpoints of this network: "
            "resnet110 (CIFAR's resnetL), torchvision:NAME or timm:NAME (default: they are ONNX)"
        )  # fmt: skip
    files.add_argument(
        "--checkpoint-key",
        metavar="KEY",
        help="where in a checkpoint the weights are, if in several places (default: the only one)",
    )
    for name in ("--mean", "--std"):
        files.add_argument(name, help=argparse.SUPPRESS)
    files.add_argument(
        "--layout",
        choices=("nchw", "nhwc"),
        default="nchw",
        help="nhwc: files that take channels last are transposed (default nchw)",
    )
    files.add_argument(
        "--consensus",
        type=int,
        default=0,
        help="ensembles: the first K decide where they agree (default 0: all are averaged)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export as the arguments say; returns the exit status."""
    try:
        from dualsmooth.export.sources import export_source
    except ModuleNotFoundError as error:
        raise InputError(f"export needs {error.name}; pip install 'dualsmooth[export,cpu]'") from error
    if arguments.report is not None and arguments.precision == "fp32":
        raise InputError("--report compares another precision with fp32; add --precision int8, fp16 or bf16")
    for name in ("report_images", "report_passes"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected at least 1")
    chosen = _files(arguments)
    settings: dict[str, Any] = {
        "precision": arguments.precision,
        "pictures": _pictures(arguments),
        "floor": arguments.floor,
        "force": arguments.force,
        "quantise_ends": arguments.quantise_ends,
        "reduce_range": arguments.reduce_range,
        **_resizing(arguments),
        **({} if arguments.groups is None else {"groups": read_groups(arguments.groups)}),
        **({} if arguments.sure is None else {"sure": _numbers(arguments.sure, "--sure")}),
    }
    command = shlex.join(["dualsmooth", *sys.argv[1:]])
    sample = None
    if arguments.report is not None:
        from dualsmooth.export.checks.side_by_side import Sample
        from dualsmooth.export.sources import classes_and_shape

        sample = Sample.load(
            arguments.report, arguments.data_dir, arguments.report_images, *classes_and_shape(chosen)
        )  # fmt: skip
    bundle = export_source(chosen, arguments.out, command=command, others=arguments.others, **settings)
    print(_summary(bundle))
    if arguments.path is None and arguments.classifier_mean is None:
        print("pixels from 0 to 1 go into these networks; where one expects normalised pixels: --classifier-mean, -std")
    print(f"next: dualsmooth certify {shlex.quote(str(bundle.path))} IMAGE")
    if sample is not None:
        from dualsmooth.export.checks.side_by_side import side_by_side
        from dualsmooth.export.sources import in_fp32

        with tempfile.TemporaryDirectory(prefix="dualsmooth-report-") as folder:
            original = in_fp32(chosen, Path(folder), arguments.others)
            print(side_by_side(original, bundle, sample, passes=arguments.report_passes))
    return 0


def _summary(bundle: Bundle) -> str:
    stored = size(sum((bundle.path / name).stat().st_size for name in bundle.files))
    line = f"{bundle.path}: {', '.join(bundle.files)} ({stored}, {bundle.precision})"
    parity = bundle.provenance.get("parity")
    if parity:
        line += f", parity with PyTorch {max(parity.values()):.1g}"
    report = bundle.provenance.get("precision")
    if isinstance(report, dict) and bundle.precision != "fp32":
        for name, levels in report["agreement"].items():
            before, after = report["bytes"][name]
            shares = ", ".join(f"{share:.1%} at sigma {level}" for level, share in levels.items())
            line += f"\n{name}: {before / 1e6:.2f} MB fp32 to {after / 1e6:.2f} MB, votes like fp32 on {shares}"
        how = ", in emulated arithmetic" if report.get("emulated") else ""
        line += f"\nmeasured on {report['measured_on']} held-out images a level of {report['images']}{how}"
        line += f" (floor {report['floor']:.1%}{', forced' if report['forced'] else ''})"
    return line


def _pictures(arguments: argparse.Namespace) -> Pictures | None:
    if arguments.calibration is None:
        return None
    from dualsmooth.export.checks.agreement import Pictures
    from dualsmooth.runtime.datasets.formats import load_dataset

    dataset = load_dataset(arguments.calibration, split="train", data_dir=arguments.data_dir)
    return Pictures.choose(f"{dataset.name} (training images)", dataset.images)


def _files(arguments: argparse.Namespace) -> Any:
    """What to export: the path of a run or bundle, or the ONNX files and what they do not say."""
    names = ("classifier", "sigmas", "classes")
    statistics = [f"{role}_{name}" for role in ROLES for name in ("mean", "std", "arch")]
    options = (*names, "estimator", "sigma_e", "input_shape", "checkpoint_key", *statistics, "mean", "std")
    given = [name for name in options if getattr(arguments, name) is not None]
    if arguments.path is not None:
        if given:
            raise InputError(f"SOURCE and --{given[0].replace('_', '-')} exclude each other; pass one of them")
        path = Path(arguments.path)
        return path if path.exists() else bundle_folder(arguments.path)
    missing = [name for name in names if getattr(arguments, name) is None]
    if missing:
        raise InputError(f"pass a run directory, a bundle, or ONNX files; --{missing[0]} is missing for the latter")
    for name in ("mean", "std"):
        if getattr(arguments, name) is not None:
            raise InputError(
                f"--{name} does not say for which network it is; pass --classifier-{name}, and --estimator-{name} too "
                "where the estimator expects normalised images"
            )
    from dualsmooth.export.sources import OnnxFiles

    sigmas = _numbers(arguments.sigmas, "--sigmas")
    require_levels(sigmas, "--sigmas")
    require_unit_scale([arguments.sigma_e or 0.0], "--sigma-e")
    for flag in ("mean", "std"):
        require_unit_scale(_numbers(getattr(arguments, flag) or "0", f"--{flag}"), f"--{flag}")
    shape = arguments.input_shape and tuple(int(n) for n in _numbers(arguments.input_shape, "--input-shape"))
    return OnnxFiles(
        estimator=[] if arguments.estimator is None else arguments.estimator.split(","),
        classifiers=[files.split(",") for files in arguments.classifier],
        sigmas=sigmas,
        sigma_e=arguments.sigma_e,
        classes=read_class_names(arguments.classes),
        input_shape=shape,
        normalise={role: pair for role in ROLES if (pair := _statistics(arguments, role))},
        architectures={role: name for role in ROLES if (name := getattr(arguments, f"{role}_arch"))},
        key=arguments.checkpoint_key or "",
        consensus=arguments.consensus,
        layout=arguments.layout,
    )


def _resizing(arguments: argparse.Namespace) -> dict[str, Any]:
    """The preprocessing of pictures that was asked for; none where a bundle's own is kept."""
    if arguments.resize is None:
        if arguments.resampling is not None:
            raise InputError(f"--resampling {arguments.resampling} without --resize, which it is about; add it")
        return {}
    sides = _numbers(arguments.resize, "--resize")
    if len(sides) > 2 or any(side != int(side) for side in sides):
        raise InputError(f"--resize {arguments.resize}; expected pixels of the shorter side, or HEIGHT,WIDTH")
    whole = tuple(int(side) for side in sides)
    return {"resize": whole if len(whole) == 2 else whole[0], "resampling": arguments.resampling or "bilinear"}


def _statistics(arguments: argparse.Namespace, role: str) -> Normalisation | None:
    given = {name: getattr(arguments, f"{role}_{name}") for name in ("mean", "std")}
    if set(given.values()) == {None}:
        return None
    mean, std = (None if text is None else _numbers(text, f"--{role}-{name}") for name, text in given.items())
    return check_statistics(mean, std, whose=f"--{role}-")


def _numbers(text: str, flag: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{flag} {text!r}; expected numbers with commas, e.g. 0.25,0.5,1") from None
