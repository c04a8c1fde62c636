"""Parts of a batch side by side on the cores of this process: for providers that run on CPUs."""

from __future__ import annotations

import os

from dualsmooth.runtime.errors import InputError

MOST_STREAMS = 256
MOST_LANES = 8
"""With more cores than this, parts of a usual batch would be too small to run side by side with one thread each."""
MOST_VALUES = 1 << 15
"""Up to 3 x 104 x 104; with a ResNet-50 at 3 x 224 x 224, two lanes did 0.8 of what one does."""


def usable_cores() -> int:
    """Cores that this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_streams(streams: int) -> None:
    """Raises `InputError` for more streams than make sense anywhere."""
    if streams > MOST_STREAMS:
        raise InputError(f"option streams is {streams}; expected at most {MOST_STREAMS}")


def on_cores(streams: int, threads: int, values: int) -> tuple[int, int]:
    """Parts that run side by side, and threads for all of them (0: the engine's choice); both 0 where not given.

    `values` of one input: the layers of large ones do not fit into the caches once for each part.
    """
    if streams:
        return streams, threads and max(threads, streams)
    cores = threads or usable_cores()
    return (cores, cores) if cores <= MOST_LANES and values <= MOST_VALUES else (1, threads)
