"""Load on the service: many clients at a time, and every answer checked.

python examples/fastapi_service/load_test.py http://127.0.0.1:8080 --clients 8 --seconds 60

Each certificate is recomputed from its counts, must be about the image that was sent and the bundle that is here, and
has noise of its own. After the load its votes are drawn again here, which takes about as long: all counts must be the
same.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import PIL.Image

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES

Images = Sequence[npt.NDArray[np.uint8]]


@dataclass
class Load:
    """What came back: the number of the image that was sent and the text of each answer, seconds, and what failed."""

    answers: list[tuple[int, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def load(url: str, images: Images, *, clients: int, seconds: float, budget: str) -> Load:
    """`clients` threads, each with a connection of its own, ask for `seconds`."""
    came, lock, end = Load(), threading.Lock(), time.monotonic() + seconds
    sent = [png(image) for image in images]

    def client(first: int) -> None:
        with httpx.Client(base_url=url, timeout=120) as http:
            number = first % len(images)
            while time.monotonic() < end:
                began = time.monotonic()
                try:
                    answer = http.post("/certify", params={"budget": budget}, content=sent[number])
                    failed = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text}"
                except httpx.HTTPError as error:
                    failed = repr(error)
                with lock:
                    if failed:
                        came.errors.append(failed)
                    else:
                        came.answers.append((number, answer.text))
                        came.seconds.append(time.monotonic() - began)
                number = (number + clients) % len(images)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return came


def wrong(answers: Sequence[tuple[int, str]], images: Images, smoother: ds.Smoother) -> list[str]:
    """What is wrong with the answers, a line each."""
    found, seeds = [], set()
    for number, text in answers:
        try:
            certificate = ds.Certificate.from_json(text)
            smoother.replay(certificate, images[number])
        except ds.DualSmoothError as error:
            found.append(f"image {number}: {error}")
            continue
        if certificate.seed.entropy in seeds:
            found.append(f"image {number}: the noise of another answer")
        seeds.add(certificate.seed.entropy)
    return found


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """An 8-bit image [C,H,W] as a PNG file."""
    file = io.BytesIO()
    PIL.Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--budget", default="fixed:1000")
    parser.add_argument(
        "--bundle", type=Path, default=SHIPPED_BUNDLE, help="what the server has (default: the shipped)"
    )
    parser.add_argument("--images", type=Path, default=SHIPPED_IMAGES, help="NPZ with x uint8 [N,H,W] or [N,H,W,C]")
    args = parser.parse_args()
    with np.load(args.images) as arrays:
        x = arrays["x"][:64]
    images = list(x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2))
    came = load(args.url, images, clients=args.clients, seconds=args.seconds, budget=args.budget)
    with ds.load(args.bundle) as smoother:
        bad = wrong(came.answers, images, smoother)
    print(f"{len(came.answers)} answers to {args.clients} clients in {args.seconds:g} s", end="")
    if len(came.answers) > 1:
        *_, late = statistics.quantiles(came.seconds, n=20)
        print(f", {statistics.median(came.seconds):.3f} s in the median, 95 % within {late:.3f} s", end="")
    print(f": {len(bad)} wrong, {len(came.errors)} errors")
    for line in dict.fromkeys([*bad, *came.errors]):
        print(line)
    return 0 if came.answers and not bad and not came.errors else 1


if __name__ == "__main__":
    sys.exit(main())
