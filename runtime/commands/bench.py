"""`dualsmooth bench`: how fast the runtime is, beside the bare session on noise made beforehand, and beside other
people's loops.

All run in turns in one process; a ratio is the median over the turns of the ratios within a turn, so that what slows
the machine for a while slows both.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from dualsmooth.runtime.bundle.reading import MANIFEST, bundle_folder
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.commands.options import BUNDLE_HELP, engine_of, engine_options, examples, noise_option
from dualsmooth.runtime.engine.device import run_bound
from dualsmooth.runtime.engine.instruction_set import described
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.providers.cores import usable_cores
from dualsmooth.runtime.errors import EngineError, InputError
from dualsmooth.runtime.noise.streams import DEFAULT_NOISE, Noise, Seed, parse_noise
from dualsmooth.runtime.smoothing.sampler import Job, Sampler
from dualsmooth.runtime.smoothing.smoother import Smoother, load
from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.certification import certification, checked_terms
from dualsmooth.runtime.statistics.rules.single import Single

Loop = Callable[[int], int]
"""Runs about so many passes and says how many it ran."""
OURS, BARE, PYTORCH = "dualsmooth", "bare session", "PyTorch"
SHIPPED = "shipped-cnn"


@dataclass(frozen=True)
class Comparison:
    """Passes per second of each loop, one figure a turn."""

    network: str
    provider: str
    precision: str
    rates: Mapping[str, list[float]]

    def ratio(self, other: str) -> float | None:
        """Median over the turns of our rate / the other's; None where the other did not run."""
        if other not in self.rates:
            return None
        return median(a / b for a, b in zip(self.rates[OURS], self.rates[other], strict=True))

    def to_dict(self) -> dict[str, Any]:
        def short(value: float | None) -> float | None:
            return None if value is None else float(f"{value:.4g}")

        return {
            "network": self.network,
            "provider": self.provider,
            "precision": self.precision,
            "passes_per_second": short(median(self.rates[OURS])),
            "ratio_to_bare": short(self.ratio(BARE)),
            "ratio_to_pytorch": short(self.ratio(PYTORCH)),
            "processor": described(),
        }


def compare(
    smoother: Smoother,
    network: str,
    others: Mapping[str, Loop],
    *,
    seconds: float = 2.0,
    turns: int = 5,
    noise: Noise | None = None,
) -> Comparison:
    """Run our loop, the bare session and `others` in `turns` turns of about `seconds` each. Raises `InputError`."""
    if not (seconds > 0 and turns >= 1):
        raise InputError(f"{turns} turns of {seconds:g} seconds; expected positive numbers")
    loops = {OURS: ours(smoother, noise or DEFAULT_NOISE), BARE: bare(smoother), **others}
    sizes = {name: _size(loop, smoother.batch_size, seconds) for name, loop in loops.items()}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(turns):
        for name in list(loops)[:: 1 if turn % 2 == 0 else -1]:
            rates[name].append(_rate(loops[name], sizes[name]))
    bundle = smoother.bundle
    return Comparison(network, smoother.engine.provider, bundle.precision, rates)


def ours(smoother: Smoother, noise: Noise, *, ahead: bool = True) -> Loop:
    """Certificates of one random image by the classifier of the middle level, selection votes and bounds included.
    `ahead`: noise is made on a worker thread while the engine runs."""
    bundle = smoother.bundle
    image = np.random.default_rng(0).integers(0, 256, bundle.input_shape).astype(np.float32) / np.float32(255)
    rule = Single.all_named(bundle.sigmas)[len(bundle.sigmas) // 2]

    def loop(passes: int) -> int:
        selection = max(1, min(100, passes // 4))
        budget = Fixed(max(1, passes - selection), n0=selection)
        terms = checked_terms(  # however few passes
            bundle.sigmas,
            bundle.sigma_e,
            len(bundle.classes),
            alpha=1e-3,
            rule=rule,
            route=None,
            budget=budget,
            sure=bundle.sure,
        )
        tally = terms.tally()
        seed = smoother.suited(Seed.make(None, noise), image)
        job = Job(image, seed, tally, certification(terms, tally))
        (done,) = Sampler(bundle, smoother.engine, batch_size=smoother.batch_size, ahead=ahead).run([job])
        return smoother.certificate(terms, done).passes

    return loop


def bare(smoother: Smoother) -> Loop:
    """The session of the same network alone, all threads on one noisy batch again and again: the engine without us."""
    bundle, engine, size = smoother.bundle, smoother.engine, smoother.batch_size
    if not isinstance(engine, OnnxEngine):
        raise InputError(f"{engine.name} has no session here; time a bundle")
    level = len(bundle.sigmas) // 2
    name = bundle.classifiers[level].members[0]
    if len(bundle.classifiers[level].members) > 1:
        raise InputError(f"{bundle.path} has an ensemble at sigma {bundle.sigmas[level]:g}; time its members alone")
    noisy = np.random.default_rng(0).standard_normal((size, *bundle.input_shape), np.float32)
    batch = engine.xp.asarray(noisy)
    sigma = np.asarray(bundle.sigmas[level], np.float32) if engine.file_takes_sigma(name) else None
    feed = {"x": batch} | ({} if sigma is None else {"sigma": sigma})
    session = engine.session(name)

    def loop(passes: int) -> int:
        for _ in range(ceil(passes / size)):
            if engine.xp is np:
                session.run(["logits"], feed)
            else:
                run_bound(session, batch, sigma, ("cuda", batch.device.id))
        return ceil(passes / size) * size

    return loop


def _rate(loop: Loop, passes: int) -> float:
    start = time.perf_counter()
    done = loop(passes)
    return done / (time.perf_counter() - start)


def _size(loop: Loop, batch: int, seconds: float) -> int:
    """Passes for about `seconds`, in whole batches, after a batch that warms up."""
    loop(batch)
    return max(2, round(_rate(loop, 2 * batch) * seconds / batch)) * batch


def table(found: list[Comparison]) -> str:
    """Markdown: one row a comparison."""
    others = [name for c in found[:1] for name in c.rates if name != OURS]
    others += [name for c in found[1:] for name in c.rates if name != OURS and name not in others]
    head = ["network", "provider", "precision", "passes/s", *(f"of {BARE}" if n == BARE else f"x {n}" for n in others)]
    rows = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
    for c in found:
        ratios = [c.ratio(name) for name in others]
        shown = [
            "–" if r is None else f"{r:.3f}" if name == BARE else f"{r:.2f}"
            for name, r in zip(others, ratios, strict=True)
        ]
        rows.append([c.network, c.provider, c.precision, f"{median(c.rates[OURS]):,.0f}", *shown])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    examples(
        parser,
        "dualsmooth bench",
        "dualsmooth bench fashion-mnist --seconds 5 --turns 9 --batch-size auto",
    )
    parser.add_argument(
        "networks", nargs="*", default=[SHIPPED], metavar="network",
        help=f"{BUNDLE_HELP}, or {SHIPPED} (default); with torch resnet20, resnet20-64, resnet110, resnet50-224",
    )  # fmt: skip
    parser.add_argument("--precision", default="fp32", help="of the named networks (default fp32; int8 needs torch)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn, in seconds (default 2)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each loop (default 5)")
    noise_option(parser)
    parser.add_argument(
        "--work", type=Path, default=Path("build/bench"), help="where networks are made and kept (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a network")
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    noise = parse_noise(args.noise)
    made, reason = _torch_side()
    found = []
    for name in args.networks:
        smoother, others = _opened(name, args, made, reason)
        try:
            found.append(compare(smoother, name, others, seconds=args.seconds, turns=args.turns, noise=noise))
        except EngineError as error:
            raise EngineError(f"{name}: {error}") from error
        if args.json:
            print(json.dumps(found[-1].to_dict()), flush=True)
    if not args.json:
        print(f"{usable_cores()} cores of an {described()}\n\n{table(found)}")
    return 0


def _torch_side() -> tuple[Any, str]:
    """What makes networks and their PyTorch loops; where it is not installed, None and the reason."""
    try:
        return import_module("dualsmooth.export.bench"), ""
    except ModuleNotFoundError as error:
        return None, f"{error.name} is not installed; pip install 'dualsmooth[training]'"


def _opened(name: str, args: argparse.Namespace, made: Any, reason: str) -> tuple[Smoother, dict[str, Loop]]:
    """A network that is named, or a bundle's folder, and the loops of other people over it."""
    path = bundle_folder(name)
    named = not (path / MANIFEST).exists()
    if named and made is not None:
        path = made.bundle(name, args.precision, args.work).path
    elif named and (name, args.precision) == (SHIPPED, "fp32"):
        path = SHIPPED_BUNDLE
    elif named:
        raise InputError(f"network {name} in {args.precision}: {reason}; or pass a bundle's folder")
    smoother = load(path, **engine_of(args))
    if made is None or not named:
        print(f"{name}: no PyTorch loop ({reason or 'a bundle has no PyTorch network'})", file=sys.stderr)
        return smoother, {}
    sigma = smoother.bundle.sigmas[len(smoother.bundle.sigmas) // 2]
    loop = made.plain_loop(made.module(name), smoother.bundle.input_shape, sigma, smoother.batch_size, args.threads)
    return smoother, {PYTORCH: loop}
