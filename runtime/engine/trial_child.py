"""Opens and runs ONNX graphs for `trial.py`, in a process of its own, which may die of it. Not imported by anything.

A job is a line of JSON on standard input; the answer is a line on standard output: `null`, or what ONNX Runtime said.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import numpy as np
import onnxruntime

IDLE = 10.0
"""Seconds without a job after which the process ends."""


def attempt(job: dict[str, Any]) -> None:
    """Open the graph at `path` as the job says and run it on batches of the sizes `rows`."""
    if job["ours"]:
        from dualsmooth.runtime.engine.providers import PROVIDERS
        from dualsmooth.runtime.engine.wheels import onnxruntime_for

        onnxruntime_for(PROVIDERS[job["ours"]])  # finds the libraries that the provider needs
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, job["level"])
    for name, value in job["entries"].items():
        settings.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(
        job["path"], settings, providers=[job["provider"]], provider_options=[job["options"]], enable_fallback=0
    )
    generator = np.random.Generator(np.random.SFC64(0))
    for rows in job["rows"]:
        feeds = {}
        for value in session.get_inputs():
            sizes = [rows, *job["shape"]] if len(value.shape) == 4 else [rows] * len(value.shape)
            dims = [d if isinstance(d, int) else size for d, size in zip(value.shape, sizes, strict=True)]
            dtype = {"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(value.type, np.float32)
            feeds[value.name] = np.abs(generator.standard_normal(dims)).astype(dtype)
        session.run(None, feeds)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the engine prints is no answer
    print("ready", file=replies, flush=True)
    while True:
        idle = threading.Timer(IDLE, os._exit, (0,))
        idle.daemon = True
        idle.start()
        line = sys.stdin.readline()
        idle.cancel()
        if not line:
            break
        said = None
        try:
            attempt(json.loads(line))
        except Exception as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
        print(json.dumps(said), file=replies, flush=True)


if __name__ == "__main__":
    main()
