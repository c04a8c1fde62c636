"""`dualsmooth train`: the arguments, and their way into a `Config`. Needs no torch until it trains."""

from __future__ import annotations

import argparse
import shlex
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dualsmooth.runtime.commands.options import examples
from dualsmooth.runtime.datasets.class_names import read_class_names
from dualsmooth.runtime.datasets.formats import NAMES
from dualsmooth.runtime.errors import InputError
from dualsmooth.training.config import Config, config_from, read_toml
from dualsmooth.training.config.quick import quickened

_FLAGS = {
    "dataset": ("dataset", str, f"{NAMES} (default: the file's)"),
    "data-dir": ("data_dir", str, "folder of the data set's files (default: $DUALSMOOTH_DATA)"),
    "classes": (
        "classes",
        str,
        "names of the networks' outputs, in order: a text file, or with commas (default: the "
        "experts' bundle's, or the data set's)",
    ),
    "sigmas": (
        "sigmas",
        str,
        "candidate noise levels, pixels in [0, 1], ascending, e.g. 0.25,0.5,1.0 (default: the file's)",
    ),
    "sigma-e": ("sigma_e", float, "the estimator's own noise level (default: the largest of the sigmas)"),
    "seed": ("seed", int, "decides every random number of the run (default 0)"),
    "validation": ("validation", int, "training images held out to measure on (default 5000)"),
    "rounds": ("rounds", int, "estimators, with classifiers fine-tuned on their routes in between (default 1)"),
    "classifier-epochs": ("classifier.epochs", int, "epochs of the classifier (default 12)"),
    "estimator-epochs": ("estimator.epochs", int, "epochs of the estimator (default 8)"),
    "labels": ("labels.images", int, "how many images are labelled for the estimator, 0 for all (default 20000)"),
    "votes": ("labels.votes", int, "passes per image and level behind each label (default 100)"),
}


_STATISTICS = ("experts-mean", "experts-std")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth train --dataset fashion-mnist --sigmas 0.25,0.5,1.0 --out runs/mine",
        "dualsmooth train --config my.toml --out runs/other --set estimator.temperature=0.1",
        "dualsmooth train --dataset cifar10 --data-dir data --experts 0.25=a.onnx,1.0=b.onnx --out runs/router",
    )
    parser.description = (
        "Train the classifier and the variance estimator. A killed run goes on with the same command, or "
        "with `dualsmooth train --out RUN` alone."
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="run directory, new or to be resumed")
    parser.add_argument("--config", metavar="FILE", help="TOML file; flags override it (default: none)")
    parser.add_argument(
        "--quick", action="store_true",
        help="minutes, not hours, to see that all of it works: smaller networks, fewer epochs and labels",
    )  # fmt: skip
    for flag, (_, kind, text) in _FLAGS.items():
        parser.add_argument(f"--{flag}", type=kind, help=text)
    parser.add_argument(
        "--experts", metavar="SIGMA=FILE,…",
        help="ONNX classifiers from anywhere, one a level, e.g. 0.25=a.onnx,1.0=b.onnx: trains the "
        "estimator only (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--experts-arch", metavar="NAME",
        help="the experts are PyTorch checkpoints of this network: resnet110, torchvision:NAME or "
        "timm:NAME (default: they are ONNX)",
    )  # fmt: skip
    for name in _STATISTICS:
        parser.add_argument(
            f"--{name}", metavar="NUMBERS", help="of (x - mean) / std in front of the experts (default: none)"
        )
    parser.add_argument(
        "--from", dest="reuse", metavar="RUN", nargs="+", default=[],
        help="take over the stages that earlier runs share; RUN=0.25,0.5: these levels' experts, RUN=estimator: its "
        "estimator, however they were trained (default: none)",
    )  # fmt: skip
    parser.add_argument("--forecast", action="store_true", help="say how long it would take, and train nothing")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="any other setting, e.g. estimator.temperature=0.1 (all keys: RUN/config.toml; default: none)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")


def run(arguments: argparse.Namespace) -> int:
    """Train as the arguments say; returns the exit status."""
    try:
        from dualsmooth.training.stages.train import forecast_run, saved_config, train
    except ModuleNotFoundError as error:
        raise InputError(f"training needs {error.name}; pip install 'dualsmooth[training,cpu]'") from error
    if arguments.threads < 1:
        raise InputError(f"--threads is {arguments.threads}; expected at least 1")
    out = Path(arguments.out)
    values = _settings(arguments)
    saved = saved_config(out) if not values else None
    given, values = _keys(values), _quick(values, arguments) if arguments.quick else values
    config = saved or _configuration(values)
    machine = {"threads": arguments.threads, "device": arguments.device}
    if arguments.forecast:
        forecast_run(config, out, **machine, reuse=arguments.reuse, given=given, say=_say)
        return 0
    command = shlex.join(["dualsmooth", *sys.argv[1:]])
    train(config, out, **machine, reuse=arguments.reuse, given=given, forecast=True, command=command, say=_say)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _quick(values: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """`values` with the changes of `--quick`, each of them said; what flags and --set give stays."""
    flags: dict[str, Any] = {}
    _put_flags(flags, arguments)
    values, lines = quickened(values, _keys(flags))
    for line in lines:
        _say(line)
    return values


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The configuration values that the arguments give: the file's, overridden by flags, overridden by --set."""
    values: dict[str, Any] = read_toml(arguments.config) if arguments.config else {}
    _put_flags(values, arguments)
    return values


def _put_flags(values: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Put what flags and --set give into `values`."""
    for flag, (key, _, _) in _FLAGS.items():
        value = getattr(arguments, flag.replace("-", "_"))
        if value is not None:
            _put(values, key, _READ[key](value) if key in _READ else value)
    if arguments.experts:
        _put(values, "experts", arguments.experts.split(","))
    if arguments.experts_arch:
        _put(values, "experts_arch", arguments.experts_arch)
    for flag in _STATISTICS:
        key = flag.replace("-", "_")
        if getattr(arguments, key) is not None:
            _put(values, key, _numbers(getattr(arguments, key), flag))
    for text in arguments.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text!r} has no value; expected KEY=VALUE, e.g. estimator.lr=0.001")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            parsed = value.strip()
        _put(values, key.strip(), parsed)


def _keys(values: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys of nested values."""
    keys = set()
    for name, value in values.items():
        keys |= _keys(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name}
    return keys


_READ: dict[str, Callable[[str], Sequence[Any]]] = {
    "sigmas": lambda text: _numbers(text, "sigmas"),
    "classes": lambda text: list(read_class_names(text)),
}


def _configuration(values: dict[str, Any]) -> Config:
    return config_from(values, "configuration")


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise InputError(f"{key} is unknown; {section} is not a section")
    values[name] = value


def _numbers(text: str, flag: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--{flag} is {text!r}; expected numbers with commas, e.g. 0.25,0.5,1.0") from None
