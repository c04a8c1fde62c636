"""Load on a Triton server: many clients at a time, each answer checked against its own image's local certificate.

taskset -c 0,1 python scripts/triton_load.py --seconds 60 --clients 8

Starts a server on the shipped bundle, prints what came back, the server's throughput beside that of the in-process
runtime on the same cores (in alternating rounds, so that both see the same machine), and the memory of the model.
Passes per CPU second (of server, stubs and clients together) say the same where other programs compete for the cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from triton_server import TritonServer

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.engine.providers import parse_options
from dualsmooth.runtime.serving.repository import fill_repository

Images = Sequence[npt.NDArray[np.uint8]]


@dataclass
class Tested:
    """What a load came to. `wrong` counts answers that differ from the image's local certificate."""

    answers: int = 0
    passes: int = 0
    wrong: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory: list[int] = field(default_factory=list)


def expected(images: Images, local: ds.Smoother, budget: ds.Budget) -> list[str]:
    """The local certificate of each image, with the image's number as seed."""
    return [local.certify(image, budget=budget, seed=number).to_json() for number, image in enumerate(images)]


def load(
    url: str,
    images: Images,
    answers: Sequence[str],
    budget: ds.Budget,
    *,
    clients: int,
    seconds: float,
    model: str = "dual_smoothing",
    process: int | None = None,
) -> Tested:
    """`clients` threads, each with a connection of its own, ask for `seconds`; every answer is compared in full."""
    tested, lock = Tested(), threading.Lock()
    end = time.monotonic() + seconds

    def client(first: int) -> None:
        with ds.connect(url, model=model, timeout=120) as remote:
            number = first
            while time.monotonic() < end:
                number = (
                    (number + clients) % len(images) if (number + clients) < len(images) else (number + 1) % clients
                )
                try:
                    made = remote.certify(images[number], budget=budget, seed=number)
                except ds.DualSmoothError as error:
                    with lock:
                        tested.errors.append(str(error))
                    continue
                with lock:
                    tested.answers += 1
                    tested.passes += made.passes
                    tested.wrong += made.to_json() != answers[number]

    start = time.monotonic()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if process is not None:
            tested.memory.append(resident(process))
        for thread in threads:
            thread.join(1.0 / clients)
    tested.seconds = time.monotonic() - start
    return tested


def resident(process: int) -> int:
    """Bytes of memory that a process holds now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096


def work(processes: Sequence[int]) -> float:
    """CPU seconds that this process and others have used."""
    ticks = 0
    for process in processes:
        ticks += sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def in_process(
    local: ds.Smoother, images: Images, budget: ds.Budget, *, clients: int, seconds: float
) -> tuple[float, int]:
    """Passes per second of the runtime without a server, and passes; as many images in flight, all finished."""
    start = time.monotonic()

    def source() -> Iterator[npt.NDArray[np.uint8]]:
        number = 0
        while time.monotonic() < start + seconds:
            yield images[number % len(images)]
            number += 1

    made = local.certify_many(source(), budget=budget, seed=0, in_flight=clients)
    passes = sum(certificate.passes for certificate in made)
    return passes / (time.monotonic() - start), passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of load in all (default 60)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--budget", default="fixed:2000")
    parser.add_argument("--threads", type=int, default=0, help="engine threads, of both sides")
    parser.add_argument("--provider-option", action="append", default=[], metavar="NAME=VALUE", help="of the server")
    parser.add_argument("--wire", default="grpc", choices=["grpc", "http"])
    args = parser.parse_args()
    budget = ds.parse_budget(args.budget)
    images = list(load_dataset(f"npz:{SHIPPED_IMAGES}").images[:24])
    local = ds.load(SHIPPED_BUNDLE, threads=args.threads)
    answers = expected(images, local, budget)
    each = args.seconds / args.rounds
    ratios, efforts, totals, memory = [], [], Tested(), []
    with tempfile.TemporaryDirectory() as folder:
        options = parse_options(args.provider_option)
        fill_repository(
            SHIPPED_BUNDLE, Path(folder) / "repository", threads=args.threads, provider_options=options, allow_seed=True
        )
        with TritonServer([Path(folder) / "repository"], Path(folder) / "log") as server:
            url = f"{args.wire}://127.0.0.1:{server.grpc if args.wire == 'grpc' else server.http}"
            (process,) = server.stubs("dual_smoothing")
            for _ in range(args.rounds):
                before = work([])
                alone = in_process(local, images, budget, clients=args.clients, seconds=each)
                cost = (work([]) - before) / alone[1]
                assert server.process is not None
                everyone = [server.process.pid, *server.stubs()]
                before = work(everyone)
                tested = load(url, images, answers, budget, clients=args.clients, seconds=each, process=process)
                efforts.append(cost / ((work(everyone) - before) / tested.passes))
                ratios.append(tested.passes / tested.seconds / alone[0])
                totals.answers += tested.answers
                totals.wrong += tested.wrong
                totals.errors += tested.errors
                memory.append(max(tested.memory) / 1e6)
                print(f"{tested.answers} answers, ratio {ratios[-1]:.3f}, by CPU time {efforts[-1]:.3f}", flush=True)
    print(f"{totals.answers} answers to {args.clients} clients: {totals.wrong} wrong, {len(totals.errors)} errors")
    print(f"passes per CPU second, server and clients over in-process: median {statistics.median(efforts):.3f}")
    print(f"throughput, server over in-process: median {statistics.median(ratios):.3f} (rounds: ", end="")
    print(", ".join(f"{r:.2f}" for r in ratios) + f"); memory {memory[0]:.0f} to {memory[-1]:.0f} MB")


if __name__ == "__main__":
    main()
