"""A long run at full load: are memory, file handles and threads flat, and certificates those of a new process?

    taskset -c 1 python scripts/long_run.py --seconds 3600 --threads 1 --out long-run.json

One process certifies the shipped images in rounds. Every round has seeds of its own and goes three ways: a stream on a
bundle that the round loads, an evaluation that stops half-way and is resumed, and a service that lives as long as the
process and is also sent a bad, a cancelled and an overdue request. All three must give the same certificates. Now and
then a new process makes those of the round again; they must be the same to the last digit. Exits with 1 if anything
differs, or grows.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from frame import add_page, parsed

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.replies import Collected
from dualsmooth.runtime.serving.service import Service
from dualsmooth.runtime.smoothing.certificate import Certificate

BUDGETS = (ds.Fixed(1_000), ds.Adaptive(4_000, 0.05), ds.AtRadius(0.5, 4_000))
IMAGES = 4
"""Images a round."""
RESIDENT, HANDLES, THREADS = "resident_mib", "handles", "threads"
ALLOWED = {RESIDENT: 8.0, HANDLES: 0.0, THREADS: 0.0}
"""How far the median of the last quarter may lie above that of the second: MiB, file handles, threads."""


@dataclass(frozen=True)
class Sample:
    """The process after a round."""

    seconds: float
    round: int
    certificates: int
    passes: int
    resident_mib: float
    handles: int
    threads: int


def sample(start: float, number: int, certificates: int, passes: int) -> Sample:
    """Taken when all garbage is gone: closed networks wait for the collector, a round or many, and are no leak."""
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc's: what is free goes back to the system
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    threads = len(os.listdir("/proc/self/task"))
    resident = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    handles = len(os.listdir("/proc/self/fd")) - 1  # less the one that lists them
    seconds = round(time.monotonic() - start, 1)
    return Sample(seconds, number, certificates, passes, round(resident, 2), handles, threads)


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Median of the last quarter of the samples less that of the second quarter, for each figure; the first quarter
    warms up."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples[:1], samples[-quarter:]
    return {
        name: statistics.median(getattr(s, name) for s in late) - statistics.median(getattr(s, name) for s in early)
        for name in ALLOWED
    }


def chosen(number: int, size: int) -> tuple[list[int], ds.Budget]:
    """The images of a round, and how they are certified; the round's number is the seed."""
    return [(IMAGES * number + i) % size for i in range(IMAGES)], BUDGETS[number % len(BUDGETS)]


def streamed(number: int, dataset: Dataset, threads: int) -> list[Certificate]:
    """The certificates of a round, from a bundle loaded for it."""
    indices, budget = chosen(number, len(dataset))
    smoother = ds.load(SHIPPED_BUNDLE, threads=threads)
    images = [dataset.images[i] for i in indices]
    return list(smoother.certify_many(images, indices=indices, seed=number, budget=budget))


def evaluated(number: int, dataset: Dataset, threads: int, folder: Path) -> list[Certificate]:
    """The same by an evaluation of the first half and another that goes on."""
    indices, budget = chosen(number, len(dataset))
    out = folder / "results.jsonl"
    out.unlink(missing_ok=True)
    smoother = ds.load(SHIPPED_BUNDLE, threads=threads)
    for part in (indices[: len(indices) // 2], indices):
        evaluate(smoother, dataset, out, indices=part, seed=number, budget=budget)
    return [result.certificate for result in load_results(out)]


def served(number: int, dataset: Dataset, service: Service) -> list[Certificate]:
    """The same from the service, with requests in between that it refuses or gives up."""
    indices, budget = chosen(number, len(dataset))
    replies: list[Collected] = []
    for index in indices:
        reply = Collected()
        service.submit(dataset.images[index], {"seed": number, "index": index, "budget": str(budget)}, reply)
        replies.append(reply)
        given_up = Collected(stop=True)
        service.submit(dataset.images[index], {"budget": "fixed:100000"}, given_up)
        replies.append(given_up)
    try:
        service.submit(dataset.images[0][:, :1], {}, Collected())
    except ds.InputError:
        pass
    else:
        raise ds.EngineError("the service took an image of another shape")
    for reply in replies:
        reply.done.wait()
    answers = [reply.answer for reply in replies if not reply.stop]
    return [answer for answer in answers if isinstance(answer, Certificate)]


def digest(certificates: Sequence[Certificate]) -> str:
    """SHA-256 of the certificates' JSON, in order."""
    return hashlib.sha256("\n".join(c.to_json() for c in certificates).encode()).hexdigest()


def fresh(number: int, threads: int) -> str:
    """The digest of a round's certificates from a new process."""
    command = [sys.executable, __file__, "--digest", str(number), "--threads", str(threads)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def long_run(seconds: float, *, threads: int, checks: int) -> dict[str, Any]:
    """Rounds for `seconds`, `checks` new processes spread over them and one at the end; what was seen."""
    dataset = load_dataset(f"npz:{SHIPPED_IMAGES}")
    samples: list[Sample] = []
    differ: list[str] = []
    certificates = passes = compared = number = 0
    service = Service(ds.load(SHIPPED_BUNDLE, threads=threads), Limits(max_seconds=600, allow_seed=True))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        while True:
            ways = {
                "stream": streamed(number, dataset, threads),
                "evaluation": evaluated(number, dataset, threads, Path(folder)),
                "service": served(number, dataset, service),
            }
            digests = {way: digest(made) for way, made in ways.items()}
            certificates += sum(map(len, ways.values()))
            passes += sum(c.passes for made in ways.values() for c in made)
            done = time.monotonic() - start
            samples.append(sample(start, number, certificates, passes))
            last = done >= seconds
            if last or done >= compared * seconds / checks:
                digests["new process"] = fresh(number, threads)
                compared += 1
                show(samples[-1])
            differ += [f"round {number}: {way}" for way, found in digests.items() if found != digests["stream"]]
            if last:
                break
            number += 1
    service.close()
    found = growth(samples)
    flat = {name: found[name] <= allowed for name, allowed in ALLOWED.items()}
    return {
        "seconds": samples[-1].seconds,
        "rounds": number + 1,
        "certificates": certificates,
        "passes": passes,
        "new_processes": compared,
        "differ": differ,
        "growth": {name: round(value, 2) for name, value in found.items()},
        "flat": flat,
        "good": not differ and all(flat.values()),
        "versions": {name: version(name) for name in ("dualsmooth", "numpy", "onnxruntime")},
        "samples": [asdict(s) for s in samples],
    }


def show(s: Sample | None = None) -> None:
    if s is None:
        print(
            f"{'seconds':>8} {'round':>6} {'certificates':>12} {'passes':>11} {'MiB':>8} {'handles':>7} {'threads':>7}"
        )
    else:
        cells = f"{s.seconds:8.0f} {s.round:6d} {s.certificates:12,d} {s.passes:11,d}"
        print(f"{cells} {s.resident_mib:8.1f} {s.handles:7d} {s.threads:7d}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--threads", type=int, default=1, help="engine threads (default 1)")
    parser.add_argument("--checks", type=int, default=20, help="rounds that a new process makes again (default 20)")
    add_page(parser, "--out", "JSON file with every sample")
    parser.add_argument("--digest", type=int, metavar="ROUND", help="only print the digest of one round's certificates")
    args = parsed(parser)
    if args.digest is not None:
        print(digest(streamed(args.digest, load_dataset(f"npz:{SHIPPED_IMAGES}"), args.threads)))
        return 0
    show()
    found = long_run(args.seconds, threads=args.threads, checks=args.checks)
    if args.page:
        write_atomically(args.page, json.dumps(found, indent=1) + "\n")
    changes = ", ".join(f"{name} {value:+g}" for name, value in found["growth"].items())
    print(f"last quarter less second: {changes}; {found['new_processes']} rounds made again by new processes")
    print("flat, and identical" if found["good"] else f"NOT GOOD: {found['flat']}, differ: {found['differ'][:5]}")
    return 0 if found["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
