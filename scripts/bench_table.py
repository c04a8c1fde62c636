"""Speed, measured beside others in one run, written to docs/bench.md: what a user gets, throughput, choices, latency,
memory; machines with AMX, with int8 dot products and with neither have a section each, and never share one.

    python scripts/bench_table.py --openvino build/venv-openvino/bin/python --out docs/bench.md
    python scripts/bench_table.py --parts latency --images 20 --out docs/bench.md
    python scripts/bench_table.py --short --out /tmp/bench.md

Run it on a machine that does nothing else; all of it takes an hour. Each part replaces its own text in the section of
this kind of machine, as soon as it is measured, and leaves all others as they are. What was measured is kept in
--results: the same command goes on where it was stopped; to measure again, delete that file. `--short` tries each part
in a minute or two; its figures mean nothing. `--openvino` adds OpenVINO, which cannot share an environment with the
other engine: its turns run in that environment, in between those of the PyTorch loop. IBM ART takes part where it is
installed (pip install adversarial-robustness-toolbox statsmodels).
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from bench_throughput import LARGE_BATCH, batch_of, large, throughput_lines, timed
from bench_user import settings, user
from frame import Measurements, cores, joined, machine, sections

import dualsmooth as ds
from dualsmooth.export import bench as networks
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.commands.bench import BARE, Loop, bare, ours
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.engine.batch_size import CANDIDATES
from dualsmooth.runtime.engine.instruction_set import has_amx, has_int8
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.noise.streams import Noise, Seed, parse_noise
from dualsmooth.runtime.smoothing.sampler import Job, Sampler
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, Request, Requests, Stream, Tally

DECISION = "at-radius:0.5:10000"
BUDGETS = ("fixed:10000", "adaptive:10000:0", DECISION)
PARTS = ("user", "throughput", "choices", "latency", "memory")
KINDS = (
    "Machines with AMX",
    "Machines with int8 dot products, without AMX",
    "Machines without int8 dot products",
)
HEAD = """# Speed

Int8 networks are much faster on processors with int8 dot products (VNNI), and faster still with Intel's AMX, so figures
of such machines are never mixed: each kind has its section, and each part says the processor and the instructions that
it was measured with.
"""
SHORT = {"seconds": 0.2, "turns": 1, "images": 3, "passes": 2000, "networks": ["shipped-cnn"], "precisions": ["fp32"]}
MEANINGS = {
    "throughput": "How many noisy copies are classified and counted each second, noise included; and against the bare "
    "session, which has its noise ready, and the loops of others in the same turns.",
    "choices": "What each setting is worth: passes a second with this one changed, against the first row.",
    "latency": "How long somebody waits for one certificate, by what is asked.",
    "memory": "The most memory that an evaluation takes, which should not depend on N.",
}
"""What the tables of a part say, in the first sentence of it."""
PEAK = """
import sys
from dualsmooth.cli import main
status = main(sys.argv[1:])
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak[0].split()[1], file=sys.stderr)
sys.exit(status)
"""
"""A command, and its peak resident memory in kB (getrusage would tell this process's where that was larger)."""


def choices(args: argparse.Namespace, measured: Measurements) -> list[str]:
    """Passes per second of our loop under other noise, threads, spinning and batch sizes, all in turns."""
    lines: list[str] = []
    for precision in args.precisions:
        lines += measured.found(f"choices of {args.choices} {precision}", partial(choice, args, precision))
    return lines


def choice(args: argparse.Namespace, precision: str) -> list[str]:
    path = networks.bundle(args.choices, precision, args.work).path
    base = {"threads": args.threads, "batch_size": args.batch}
    plain = ds.load(path, **base)
    loops: dict[str, Loop] = {
        f"{args.noise} noise, batch {args.batch}, {threads_text(args.threads)}": ours(plain, parse_noise(args.noise))
    }
    loops["noise on the engine's thread"] = ours(plain, parse_noise(args.noise), ahead=False)
    for noise in ("table", "float", "float:philox", "float:mkl", "lattice", "lattice:mkl"):
        if noise != args.noise and usable(parse_noise(noise)):
            loops[f"{noise} noise"] = ours(plain, parse_noise(noise))
    for threads in range(1, cores() + 1):
        if threads != args.threads:
            loops[threads_text(threads)] = ours(ds.load(path, **base | {"threads": threads}), parse_noise(args.noise))
    for text, options in (("all threads on one part", {}), ("the same, threads that spin", {"spinning": True})):
        together = ds.load(path, **base, provider_options={"streams": 1, **options})
        loops[text] = ours(together, parse_noise(args.noise))
    for size in CANDIDATES:
        if size != args.batch:
            loops[f"batch {size}"] = ours(ds.load(path, **base | {"batch_size": size}), parse_noise(args.noise))
    loops[BARE] = bare(plain)
    first = next(iter(loops))
    rates = in_turns(loops, args)
    lines = [
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
    try:
        Seed(0, noise=noise).generator(Stream(CLASSIFIER, 0, ESTIMATION))
    except ds.InputError:
        return False
    return True


def latency(args: argparse.Namespace) -> list[str]:
    """Milliseconds of one certificate: the shipped bundle on its own test images under each budget, and ResNet-20 in
    int8 on as many votes, asked for in the same looks, as each of these decisions at a radius took."""
    smoother = ds.load(SHIPPED_BUNDLE, threads=args.threads, batch_size=args.batch)
    images = load_dataset(f"npz:{SHIPPED_IMAGES}").images[: args.images]
    lines = ["| network | budget | median ms | 90 % below | median passes |", "| --- | --- | ---: | ---: | ---: |"]

    def row(network: str, text: str, times: list[float], passes: list[int]) -> None:
        shown = f"{1000 * median(times):.1f} | {1000 * np.quantile(times, 0.9):.1f} | {median(passes):,.0f}"
        lines.append(f"| {network} | {text} | {shown} |")

    for text in BUDGETS:
        budget, times, certificates = ds.parse_budget(text), [], []
        smoother.certify(images[0], budget=budget)
        for image in images:
            start = time.perf_counter()
            certificates.append(smoother.certify(image, budget=budget))
            times.append(time.perf_counter() - start)
        row("shipped-cnn fp32", text, times, [certificate.passes for certificate in certificates])
    other = ds.load(networks.bundle("resnet20", "int8", args.work).path, threads=args.threads, batch_size=args.batch)
    same_looks(other, certificates[0].tally)
    times = [same_looks(other, certificate.tally) for certificate in certificates]
    row("resnet20 int8", f"the votes of {DECISION}", times, [certificate.passes for certificate in certificates])
    return lines


def same_looks(smoother: ds.Smoother, stated: Tally) -> float:
    """Seconds in which `smoother` draws the looks of another tally, one after the other."""

    def requests() -> Requests:
        for stream, looks in stated.looks.items():
            for look in looks:
                yield [Request(stream, int(look.sum()))]

    bundle = smoother.bundle
    image = np.random.default_rng(0).random(bundle.input_shape, np.float32)
    job = Job(image, Seed.make(None), Tally(len(bundle.classes), len(bundle.sigmas)), requests())
    start = time.perf_counter()
    next(Sampler(bundle, smoother.engine, batch_size=smoother.batch_size).run([job]))
    return time.perf_counter() - start


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


def memory(args: argparse.Namespace, measured: Measurements) -> list[str]:
    """Peak resident memory of `evaluate` on one image, at three N; far smaller ones for ImageNet-size networks."""
    lines = ["| network | precision | batch | N | peak MB |", "| --- | --- | ---: | ---: | ---: |"]
    with tempfile.TemporaryDirectory() as folder:
        for name in args.networks:
            channels, height, width = networks.SPECS[name].input_shape
            data, batch = Path(folder) / f"{name}.npz", batch_of(name, args)
            x = np.random.default_rng(0).integers(0, 256, (1, height, width, channels), np.uint8)
            np.savez(data, x=x, y=np.zeros(1, np.int64))
            most = args.passes // 1000 if large(name) else args.passes
            steps = (most // 4, most // 2, most) if large(name) else (most // 100, most // 10, most)
            for precision in args.precisions:
                bundle = networks.bundle(name, precision, args.work).path
                for passes in steps:
                    command = [
                        sys.executable, "-c", PEAK, "evaluate", str(bundle), "--dataset", f"npz:{data}",
                        "--out", str(Path(folder) / f"{name}-{precision}-{passes}.jsonl"),
                        "--budget", f"fixed:{passes}:16", "--threads", str(args.threads), "--batch-size", str(batch),
                        "--noise", args.noise,
                    ]  # fmt: skip
                    what = f"memory of {name} {precision} at N = {passes:,}"
                    peak = measured.found(what, partial(peak_of, command))
                    lines.append(f"| {name} | {precision} | {batch} | {passes:,} | {peak:.0f} |")
    return lines


def peak_of(command: list[str]) -> float:
    """MB that a command took at most."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stderr.split()[-1]) / 1024


def kind_of_machine() -> str:
    return KINDS[0 if has_amx() else 1 if has_int8() else 2]


def placed(page: str, title: str, body: str, *, order: Sequence[str], kind: str) -> str:
    """The page with one part of this kind of machine's section replaced; the other kind's stays as it is."""
    kinds = sections(page)
    parts = sections(kinds.get(kind, ""), "###") | {title: body}
    in_order = dict.fromkeys([*order, *parts])
    kinds[kind] = joined("", {name: parts[name] for name in in_order if name in parts}, "###").strip()
    return joined(HEAD, {name: kinds[name] for name in dict.fromkeys([*KINDS, *kinds]) if name in kinds})


def threads_text(threads: int) -> str:
    return f"{threads} engine threads" if threads else "threads as the engine chooses"


def words(text: str) -> list[str]:
    return text.split(",")


def parts_of(text: str) -> list[str]:
    if unknown := set(words(text)) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}; expected of {', '.join(PARTS)}")
    return words(text)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser()
    found.add_argument("--networks", type=words, default=list(networks.SPECS), help="comma-separated")
    found.add_argument("--precisions", type=words, default=["fp32", "int8"], help="comma-separated")
    found.add_argument("--choices", default="resnet20", help="the network of the table of choices")
    found.add_argument("--openvino", type=Path, help="a Python with onnxruntime-openvino and dualsmooth")
    found.add_argument("--threads", type=int, default=cores())
    found.add_argument("--batch", type=int, default=256)
    found.add_argument("--noise", default="auto")
    found.add_argument("--seconds", type=float, default=3.0)
    found.add_argument("--turns", type=int, default=7)
    found.add_argument("--images", type=int, default=100, help="of the tables of certificates")
    found.add_argument("--passes", type=int, default=100_000, help="largest N of the tables")
    found.add_argument("--price", type=float, default=0.05, help="of a core-hour (default 0.05)")
    found.add_argument("--currency", default="USD", help="of the price (default USD)")
    found.add_argument("--work", type=Path, default=Path("build/bench"))
    found.add_argument("--parts", type=parts_of, default=list(PARTS), help="comma-separated: " + ", ".join(PARTS))
    found.add_argument("--results", type=Path, help="what was measured so far (default: WORK/measured.jsonl)")
    found.add_argument("--short", action="store_true", help="try each part: one small network, one short turn")
    found.add_argument("--json", type=Path, help="also write the throughput as JSON lines")
    found.add_argument("--out", type=Path, required=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    vars(args).update((SHORT | {"choices": "shipped-cnn"}) if args.short else {})
    where = machine("onnxruntime", "torch", "numpy")
    name = "short.jsonl" if args.short else "measured.jsonl"
    measured = Measurements(args.results or args.work / name, "what", settings(args, where))
    how = (
        f"`python scripts/bench_table.py {shlex.join(sys.argv[1:] if arguments is None else arguments)}` on {where}; "
        f"{args.threads} threads each, batches of {args.batch} ({LARGE_BATCH} for ImageNet-size networks), "
        f"noise {args.noise}."
    )
    turns = f" Medians of {args.turns} turns of {args.seconds:g} s; ratios are within a turn."
    price = (
        f" {args.images} images at a time, alpha 0.001, provider cpu; a core-hour costs {args.price:g} {args.currency}."
    )
    parts: dict[str, tuple[str, Callable[[], list[str]]]] = {
        "user": ("What a user gets", lambda: [how + price, "", *user(args, measured)]),
        "throughput": ("Throughput", lambda: [how + turns, "", *throughput_lines(args, measured)]),
        "choices": ("Choices", lambda: [how + turns, *choices(args, measured)]),
        "latency": ("One certificate", lambda: [
            how, "", f"{args.images} Fashion-MNIST test images, alpha = 0.001:", "",
            *measured.found("latency", lambda: latency(args)), "",
            "From the command line to the first certificate (fixed:1000): "
            f"{measured.found('first certificate', lambda: first_certificate(args)):.2f} s.",
        ]),
        "memory": ("Memory of `evaluate`", lambda: [how, "", *memory(args, measured)]),
    }  # fmt: skip
    order = [title for title, _ in parts.values()]
    for part in args.parts:
        title, lines = parts[part]
        body = "\n".join([*([MEANINGS[part], ""] if part in MEANINGS else []), *lines()])
        page = args.out.read_text("utf-8") if args.out.exists() else ""
        write_atomically(args.out, placed(page, title, body, order=order, kind=kind_of_machine()))


if __name__ == "__main__":
    main()
