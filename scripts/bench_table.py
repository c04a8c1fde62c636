"""Speed, measured beside others in one run, written to docs/bench.md: throughput, choices, latency, memory.

    python scripts/bench_table.py --out docs/bench.md
    python scripts/bench_table.py --networks shipped-cnn,resnet20 --seconds 0.5 --turns 2 --passes 2000 --out /tmp/b.md

Run it on a machine that does nothing else. `--openvino build/venv-openvino/bin/python` adds OpenVINO, which cannot
share an environment with the other engine: its turns run in that environment, in between those of the PyTorch loop. IBM
ART takes part where it is installed (pip install adversarial-robustness-toolbox statsmodels).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

import dualsmooth as ds
from dualsmooth.export import bench as networks
from dualsmooth.runtime.batch_size import CANDIDATES, processor
from dualsmooth.runtime.bench import BARE, OURS, PYTORCH, Comparison, Loop, bare, compare, ours, table
from dualsmooth.runtime.datasets import load_dataset
from dualsmooth.runtime.demo import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.noise import Noise, parse_noise

ART = "IBM ART"
BUDGETS = ("fixed:10000", "adaptive:10000:0", "at-radius:0.5:10000")
PEAK = """
import sys
from dualsmooth.cli import main
status = main(sys.argv[1:])
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak[0].split()[1], file=sys.stderr)
sys.exit(status)
"""
"""A command, and its peak resident memory in kB (getrusage would tell this process's where that was larger)."""


def art_loop(network: torch.nn.Module, shape: tuple[int, int, int], classes: int, sigma: float, batch: int) -> Loop:
    """IBM ART's certification of one image; raises ImportError where ART is not there."""
    import statsmodels  # noqa: F401  (ART imports it late)
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    smoothed = PyTorchRandomizedSmoothing(
        model=network, loss=torch.nn.CrossEntropyLoss(), input_shape=shape, nb_classes=classes, clip_values=(0.0, 1.0),
        sample_size=100, scale=sigma, alpha=0.001, device_type="cpu",
    )  # fmt: skip
    image = np.random.default_rng(0).random((1, *shape), np.float32)

    def loop(passes: int) -> int:
        smoothed.certify(image, n=passes, batch_size=batch)
        return passes + 100

    return loop


def throughput(args: argparse.Namespace) -> tuple[list[Comparison], list[str]]:
    """One comparison a network, provider and precision, and what could not take part."""
    found, notes = [], []
    for name in args.networks:
        module, spec = networks.module(name), networks.SPECS[name]
        sigma = networks.SIGMAS[len(networks.SIGMAS) // 2]
        others = {PYTORCH: networks.plain_loop(module, spec.input_shape, sigma, args.batch, args.threads)}
        try:
            if max(spec.input_shape) <= 64:  # it holds all noisy copies in memory at once, as float64
                others[ART] = art_loop(module, spec.input_shape, spec.outputs, sigma, args.batch)
        except ImportError as error:
            notes.append(f"{ART} did not take part: {error.name} is not installed")
        for precision in args.precisions:
            path = networks.bundle(name, precision, args.work).path
            smoother = ds.load(path, threads=args.threads, batch_size=args.batch)
            print(f"{name} {precision}", file=sys.stderr, flush=True)
            found.append(
                compare(smoother, name, others, seconds=args.seconds, turns=args.turns, noise=parse_noise(args.noise))
            )
            if args.openvino:
                found.append(openvino(args, name, path, precision, others[PYTORCH]))
    return found, sorted(set(notes))


def openvino(args: argparse.Namespace, name: str, path: Path, precision: str, plain: Loop) -> Comparison:
    """OpenVINO's turns in its own environment, in between those of the plain loop here."""
    command = [
        str(args.openvino), "-m", "dualsmooth", "bench", str(path), "--provider", "openvino", "--json", "--turns", "1",
        "--threads", str(args.threads), "--batch-size", str(args.batch), "--seconds", str(args.seconds),
        "--noise", args.noise,
    ]  # fmt: skip
    plain(args.batch)
    passes = max(2, round(timed(plain, 2 * args.batch) * args.seconds / args.batch)) * args.batch
    rates: dict[str, list[float]] = {OURS: [], BARE: [], PYTORCH: []}
    for _ in range(args.turns):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        line = json.loads(done.stdout)
        rates[OURS].append(line["passes_per_second"])
        rates[BARE].append(line["passes_per_second"] / line["ratio_to_bare"])
        rates[PYTORCH].append(timed(plain, passes))
    return Comparison(name, "openvino", precision, rates)


def timed(loop: Loop, passes: int) -> float:
    start = time.perf_counter()
    done = loop(passes)
    return done / (time.perf_counter() - start)


def choices(args: argparse.Namespace) -> list[str]:
    """Passes per second of our loop under other noise, threads, spinning and batch sizes, all in turns."""
    lines = []
    for precision in args.precisions:
        path = networks.bundle(args.choices, precision, args.work).path
        base = {"threads": args.threads, "batch_size": args.batch}
        plain = ds.load(path, **base)
        loops: dict[str, Loop] = {
            f"{args.noise} noise, batch {args.batch}, {threads_text(args.threads)}": ours(
                plain, parse_noise(args.noise)
            )
        }
        loops["noise on the engine's thread"] = ours(plain, parse_noise(args.noise), ahead=False)
        for noise in ("float", "float:philox", "float:mkl", "lattice", "lattice:mkl"):
            if noise != args.noise and usable(parse_noise(noise)):
                loops[f"{noise} noise"] = ours(plain, parse_noise(noise))
        for threads in range(1, cores() + 1):
            if threads != args.threads:
                loops[threads_text(threads)] = ours(
                    ds.load(path, **base | {"threads": threads}), parse_noise(args.noise)
                )
        active = ds.load(path, **base, provider_options={"spinning": True})
        loops["threads that spin"] = ours(active, parse_noise(args.noise))
        for size in CANDIDATES:
            if size != args.batch:
                loops[f"batch {size}"] = ours(ds.load(path, **base | {"batch_size": size}), parse_noise(args.noise))
        loops[BARE] = bare(plain)
        first = next(iter(loops))
        rates = in_turns(loops, args)
        lines += [
            f"\n{args.choices}, {precision}, provider cpu:\n",
            "| | passes/s | against the first |",
            "| --- | ---: | ---: |",
        ]
        for name, found in rates.items():
            ratio = median(a / b for a, b in zip(found, rates[first], strict=True))
            lines.append(f"| {name} | {median(found):,.0f} | {ratio:.3f} |")
    return lines


def in_turns(loops: dict[str, Loop], args: argparse.Namespace) -> dict[str, list[float]]:
    passes = {}
    for name, loop in loops.items():
        loop(args.batch)
        passes[name] = max(2, round(timed(loop, 2 * args.batch) * args.seconds / args.batch)) * args.batch
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(args.turns):
        for name in list(loops)[:: 1 if turn % 2 == 0 else -1]:
            rates[name].append(timed(loops[name], passes[name]))
    return rates


def usable(noise: Noise) -> bool:
    from dualsmooth.runtime.noise import Seed
    from dualsmooth.runtime.votes import Stream

    try:
        Seed(0, noise=noise).generator(Stream("classifier", 0, "estimation"))
    except ds.InputError:
        return False
    return True


def latency(args: argparse.Namespace) -> list[str]:
    """Milliseconds of one certificate under each budget: the shipped bundle on its own test images."""
    smoother = ds.load(SHIPPED_BUNDLE, threads=args.threads, batch_size=args.batch)
    images = load_dataset(f"npz:{SHIPPED_IMAGES}").images[: args.images]
    lines = ["| budget | median ms | 90 % below | median passes |", "| --- | ---: | ---: | ---: |"]
    for text in BUDGETS:
        budget, times, passes = ds.parse_budget(text), [], []
        smoother.certify(images[0], budget=budget)
        for image in images:
            start = time.perf_counter()
            passes.append(smoother.certify(image, budget=budget).passes)
            times.append(1000 * (time.perf_counter() - start))
        lines.append(f"| {text} | {median(times):.1f} | {np.quantile(times, 0.9):.1f} | {median(passes):,.0f} |")
    return lines


def first_certificate(args: argparse.Namespace) -> float:
    """Seconds from starting the command to the first certificate, fixed:1000: imports, checks and load included."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.npy"
        np.save(image, load_dataset(f"npz:{SHIPPED_IMAGES}").images[0])
        command = [
            sys.executable, "-m", "dualsmooth", "certify", str(SHIPPED_BUNDLE), str(image), "--budget", "fixed:1000",
            "--threads", str(args.threads),
        ]  # fmt: skip
        seconds = []
        for _ in range(args.turns):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
    return median(seconds)


def memory(args: argparse.Namespace) -> list[str]:
    """Peak resident memory of `evaluate` on two images, at three N."""
    lines = ["| network | N | peak MB |", "| --- | ---: | ---: |"]
    with tempfile.TemporaryDirectory() as folder:
        for name in [n for n in args.networks if max(networks.SPECS[n].input_shape) <= 64]:
            channels, height, width = networks.SPECS[name].input_shape
            data = Path(folder) / f"{name}.npz"
            x = np.random.default_rng(0).integers(0, 256, (2, height, width, channels), np.uint8)
            np.savez(data, x=x, y=np.zeros(2, np.int64))
            for passes in (args.passes // 100, args.passes // 10, args.passes):
                out = Path(folder) / f"{name}-{passes}.jsonl"
                bundle = networks.bundle(name, "fp32", args.work).path
                command = [
                    sys.executable, "-c", PEAK, "evaluate", str(bundle), "--dataset", f"npz:{data}", "--out", str(out),
                    "--budget", f"fixed:{passes}", "--threads", str(args.threads),
                ]  # fmt: skip
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                lines.append(f"| {name} | {passes:,} | {int(done.stderr.split()[-1]) / 1024:.0f} |")
    return lines


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_text(threads: int) -> str:
    return f"{threads} engine threads" if threads else "threads as the engine chooses"


def words(text: str) -> list[str]:
    return text.split(",")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=words, default=list(networks.SPECS), help="comma-separated")
    parser.add_argument("--precisions", type=words, default=["fp32", "int8"], help="comma-separated")
    parser.add_argument("--choices", default="resnet20", help="the network of the table of choices")
    parser.add_argument("--openvino", type=Path, help="a Python with onnxruntime-openvino and dualsmooth")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--noise", default="float:mkl" if usable(parse_noise("float:mkl")) else "float")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--images", type=int, default=100, help="of the latency table")
    parser.add_argument("--passes", type=int, default=100_000, help="largest N of the memory table")
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    parser.add_argument("--parts", type=words, default=["throughput", "choices", "latency", "memory"])
    parser.add_argument("--json", type=Path, help="also write the throughput as JSON lines")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    text = [
        "# Speed",
        "",
        f"Made by `python scripts/bench_table.py` on {cores()} cores ({processor()}), {platform.platform()}; "
        f"onnxruntime {ds.load(SHIPPED_BUNDLE).engine.version}, torch {torch.__version__}, NumPy {np.__version__}. "
        f"Medians of {args.turns} turns of {args.seconds:g} s; ratios are within a turn. {args.threads} threads each, "
        f"batches of {args.batch}, noise {args.noise}.",
    ]
    parts: dict[str, Callable[[], list[str]]] = {
        "choices": lambda: ["", "## Choices", *choices(args)],
        "latency": lambda: [
            "", "## One certificate", "",
            f"The shipped bundle, {args.images} Fashion-MNIST test images, alpha = 0.001:", "", *latency(args), "",
            f"From the command line to the first certificate (fixed:1000): {first_certificate(args):.2f} s.",
        ],
        "memory": lambda: ["", "## Memory of `evaluate`", "", *memory(args)],
    }  # fmt: skip
    if "throughput" in args.parts:
        found, notes = throughput(args)
        text += ["", "## Throughput", "", table(found), *(f"\n{note}." for note in notes)]
        if args.json:
            write_atomically(args.json, "".join(json.dumps(c.to_dict()) + "\n" for c in found))
    for name, part in parts.items():
        if name in args.parts:
            text += part()
    write_atomically(args.out, "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
