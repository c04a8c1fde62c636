"""`dualsmooth doctor`: what this machine can do, what is wrong with it, and how to mend that."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.commands.options import ENGINE_DEFAULTS, examples
from dualsmooth.runtime.engine.batch_size import remembered
from dualsmooth.runtime.engine.instruction_set import (
    FEATURES,
    features,
    has_fast_bf16,
    has_int8,
    instruction_set,
    processor,
    why_bf16,
)
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.providers import PROVIDERS
from dualsmooth.runtime.engine.providers.cores import MOST_LANES, usable_cores
from dualsmooth.runtime.engine.providers.cpu import Cpu
from dualsmooth.runtime.engine.wheels import clash, installed_wheels, offered
from dualsmooth.runtime.errors import DualSmoothError, InputError, one_line
from dualsmooth.runtime.noise.add import MODES
from dualsmooth.runtime.noise.generators import GENERATORS
from dualsmooth.runtime.noise.selftest import check_entropy, check_generator
from dualsmooth.runtime.noise.streams import DEFAULT_NOISE, Noise, Seed
from dualsmooth.runtime.smoothing.smoother import load

GOOD, NOTE, BAD = "ok", "note", "bad"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `state` is ok, note (works, but worth knowing) or bad, with the `fix` where there is one."""

    subject: str
    state: str
    text: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth doctor",
        "dualsmooth doctor --json",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")


def run(args: argparse.Namespace) -> int:
    """Show what was found; 1 where something is bad."""
    findings = examine()
    if args.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        for found in findings:
            print(
                f"{found.state:5}{found.subject:12}{found.text}" + (f"\n{'':17}fix: {found.fix}" if found.fix else "")
            )
    return 1 if any(found.state == BAD for found in findings) else 0


def examine(*subjects: str) -> list[Finding]:
    """Everything (or only some `subjects`): first what may have to be mended, in that order, then what is chosen on
    this machine, and why. Never raises: what fails is a finding."""
    checks: Sequence[tuple[str, Callable[[], Finding]]] = (
        ("versions", _versions),
        ("engine", _engine),
        ("providers", _providers),
        ("processor", _processor),
        ("noise", _noise),
        ("certificate", _certificate),
        ("kernels", _kernels),
        ("threads", _threads),
        ("batch size", _batch_size),
        ("8-bit noise", _image_noise),
        ("training", _training),
    )
    findings = []
    for subject, check in checks:
        if subjects and subject not in subjects:
            continue
        try:
            findings.append(check())
        except DualSmoothError as error:
            findings.append(Finding(subject, BAD, str(error)))
        except Exception as error:  # whatever is broken here, the other checks still help
            findings.append(Finding(subject, BAD, f"{type(error).__name__}: {one_line(error)}"))
    return findings


def _versions() -> Finding:
    names = ("dualsmooth", "numpy", "scipy")
    parts = [f"{name} {metadata.version(name)}" for name in names]
    return Finding("versions", GOOD, ", ".join([f"Python {platform.python_version()}", *parts, platform.platform()]))


def _engine() -> Finding:
    wheels = installed_wheels()
    if clashing := clash():
        return Finding("engine", BAD, *clashing)
    try:
        import onnxruntime
    except ImportError as error:
        return Finding(
            "engine", BAD, f"ONNX Runtime cannot be imported ({one_line(error)})", "pip install 'dualsmooth[cpu]'"
        )
    for name, version in wheels.items():
        if version.partition("+")[0] != str(onnxruntime.__version__).partition("+")[0]:
            return Finding(
                "engine", BAD, f"{name} {version} is installed but {onnxruntime.__version__} is what is imported",
                f"pip install --force-reinstall {name}=={version}",
            )  # fmt: skip
    name = next(iter(wheels), "onnxruntime (not from pip)")
    return Finding("engine", GOOD, f"{name} {onnxruntime.__version__}")


def _providers() -> Finding:
    import onnxruntime

    available = onnxruntime.get_available_providers()
    usable = offered(onnxruntime)
    if not usable:
        return Finding("providers", BAD, f"the engine offers {', '.join(available)}; dualsmooth uses none of them")
    text = f"{', '.join(usable)} (the engine offers {', '.join(available)})"
    for name in usable:
        PROVIDERS[name].prepare(onnxruntime)
    missing = {name: reason for name in usable if (reason := PROVIDERS[name].why_missing())}
    if missing:
        reasons = "; ".join(f"{name} will not start: {reason}" for name, reason in missing.items())
        return Finding("providers", NOTE, f"{text}; {reasons}")
    return Finding("providers", GOOD, text)


def _processor() -> Finding:
    found = [f"{name} ({FEATURES[name]})" for name in features()]
    what = ", ".join(found) or "no known vector extensions"
    text = f"{processor()}, {usable_cores()} cores for this process; {what}"
    if not has_int8():
        return Finding(
            "processor", NOTE,
            f"{text}; no int8 dot products: int8 bundles gain less, and their sums saturate: they vote otherwise here",
            "certify where you deploy; or export --precision int8 --reduce-range",
        )  # fmt: skip
    return Finding("processor", GOOD, text)


def _noise() -> Finding:
    check_entropy()
    sound = []
    for name in GENERATORS:
        try:
            for mode in MODES:
                check_generator(Seed.make(None, Noise(mode, name)))
        except InputError:  # not installed
            continue
        sound.append(name)
    tests = "known answers, moments, tails, serial correlation, repetitions and independence of streams"
    return Finding("noise", GOOD, f"{', '.join(sound)} pass {tests}, in all noise modes")


def _certificate() -> Finding:
    smoother = load(SHIPPED_BUNDLE)
    image = np.zeros(smoother.bundle.input_shape, np.float32)
    passes = smoother.predict(image, n=64, alpha=0.1).passes
    return Finding(
        "certificate", GOOD, f"the shipped bundle loads and votes on {smoother.engine.provider} ({passes} passes)"
    )


def _kernels() -> Finding:
    text = f"{instruction_set()}, the strongest here that decides how networks round; certificates on CPUs name it"
    return Finding("kernels", GOOD, text)


def _threads() -> Finding:
    lanes, threads = Cpu().lanes_and_threads(ENGINE_DEFAULTS["threads"], 0)
    how = f"{lanes} parts of a batch side by side" if lanes > 1 else "one part of a batch at a time"
    limit = f"; more than {MOST_LANES} work on one part" if usable_cores() > MOST_LANES else ""
    count = str(threads) if threads else "the engine's choice of"
    how += f" on {count} threads, since this process may use {usable_cores()} cores{limit}"
    return Finding("threads", GOOD, f"{how} (--threads; large inputs have one part)")


def _batch_size() -> Finding:
    bundle = read_bundle(SHIPPED_BUNDLE)
    known = remembered(bundle, OnnxEngine(bundle, Cpu()), (ENGINE_DEFAULTS["threads"], Cpu()))
    measured = f"measured {known} for the shipped bundle on this machine" if known else "not measured yet"
    return Finding(
        "batch size", GOOD, f"{ENGINE_DEFAULTS['batch_size']}, near the best (docs/bench.md); auto: {measured}"
    )


def _image_noise() -> Finding:
    levels = read_bundle(SHIPPED_BUNDLE).noise_levels
    lattice, other = (DEFAULT_NOISE.suited(image, levels) for image in (np.zeros(1, np.uint8), np.full(1, 1e-3, "f4")))
    text = f"{lattice} by {lattice.generator}: exact on the images' lattice, and faster; other images get {other}"
    return Finding("8-bit noise", GOOD, text)


def _training() -> Finding:
    chosen = "bfloat16" if has_fast_bf16() else "float32"
    return Finding("training", GOOD, f'autocast = "auto" takes {chosen} on this CPU, since {why_bf16()}')
