"""Passes per second of the networks, beside others in turns, and what the processor could do."""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from frame import Measurements
from onnx import TensorProto, helper, numpy_helper

import dualsmooth as ds
from dualsmooth.export import bench as networks
from dualsmooth.runtime.bundle.describing import describe
from dualsmooth.runtime.commands.bench import BARE, OURS, PYTORCH, Comparison, Loop, compare, table
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.noise.streams import parse_noise

ART = "IBM ART"
LARGE = 1 << 16
"""Values in an image from which on batches are `LARGE_BATCH` and N is small: a pass takes a tenth of a second."""
LARGE_BATCH = 16
SIDE = 2048
"""Of the square matrices whose products say what the processor can do."""


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


def throughput(args: argparse.Namespace, measured: Measurements) -> tuple[list[Comparison], list[str]]:
    """One comparison a network, provider and precision, and what could not take part."""
    found, notes = [], []
    for name in args.networks:
        module, spec = networks.module(name), networks.SPECS[name]
        sigma = networks.SIGMAS[len(networks.SIGMAS) // 2]
        batch = batch_of(name, args)
        others = {PYTORCH: networks.plain_loop(module, spec.input_shape, sigma, batch, args.threads)}
        try:
            if not large(name):  # it holds all noisy copies in memory at once, as float64
                others[ART] = art_loop(module, spec.input_shape, spec.outputs, sigma, batch)
        except ImportError as error:
            notes.append(f"{ART} did not take part: {error.name} is not installed")
        for precision in args.precisions:
            path = networks.bundle(name, precision, args.work).path
            ways: dict[str, Callable[[], Comparison]] = {
                "cpu": partial(with_cpu, args, name, path, batch, others),
            }
            if args.openvino:
                ways["openvino"] = partial(openvino, args, name, path, precision, others[PYTORCH])
            for provider, way in ways.items():
                what = f"passes of {name} {precision} on {provider}"
                found.append(Comparison(**measured.found(what, partial(as_row, way))))
    return found, sorted(set(notes))


def as_row(way: Callable[[], Comparison]) -> dict[str, Any]:
    return dict(vars(way()))


def with_cpu(args: argparse.Namespace, name: str, path: Path, batch: int, others: Mapping[str, Loop]) -> Comparison:
    """The turns of provider cpu, and of the other loops."""
    smoother = ds.load(path, threads=args.threads, batch_size=batch)
    return compare(smoother, name, others, seconds=args.seconds, turns=args.turns, noise=parse_noise(args.noise))


def openvino(args: argparse.Namespace, name: str, path: Path, precision: str, plain: Loop) -> Comparison:
    """OpenVINO's turns in its own environment, in between those of the plain loop here."""
    command = [
        str(args.openvino), "-m", "dualsmooth", "bench", str(path), "--provider", "openvino", "--json", "--turns", "1",
        "--threads", str(args.threads), "--batch-size", str(batch := batch_of(name, args)),
        "--seconds", str(args.seconds), "--noise", args.noise,
    ]  # fmt: skip
    plain(batch)
    passes = max(2, round(timed(plain, 2 * batch) * args.seconds / batch)) * batch
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


def ceilings(found: list[Comparison], args: argparse.Namespace, measured: Measurements) -> list[str]:
    """What the processor could do, were all multiply-adds of a network as fast as those of the best matrix product; and
    what we reach of it, with the faster provider."""
    products = {
        precision: measured.found(f"matrix products in {precision}", partial(best_product, precision, args.threads))
        for precision in args.precisions
    }
    shown = " and ".join(f"{rate / 1e9:,.0f} billion in {precision}" for precision, rate in products.items())
    lines = [
        f"The fastest matrix product ({SIDE} x {SIDE}, ONNX Runtime's CPU provider, the best in two seconds) makes "
        f"{shown} multiply-adds a second. Networks whose multiply-adds were all as fast:",
        "",
        "| network | precision | multiply-adds | passes/s at that rate | x PyTorch at that rate | we reach of it |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, precision in dict.fromkeys((c.network, c.precision) for c in found):
        rows = [c for c in found if (c.network, c.precision) == (name, precision)]
        levels = describe(networks.bundle(name, precision, args.work))["levels"]
        cost = levels[len(levels) // 2]["multiply_adds"]
        most, plain = products[precision] / cost, median(rate for c in rows for rate in c.rates[PYTORCH])
        reached = max(median(c.rates[OURS]) for c in rows) / most
        lines.append(
            f"| {name} | {precision} | {cost / 1e6:,.1f} M | {most:,.0f} | {most / plain:.1f} | {reached:.0%} |"
        )
    return lines


def best_product(precision: str, threads: int) -> float:
    """Multiply-adds a second of the fastest of many products of two square matrices."""
    kind, other = (TensorProto.UINT8, TensorProto.INT8) if precision == "int8" else (TensorProto.FLOAT,) * 2
    rng = np.random.default_rng(0)
    a, b = (rng.integers(1, 100, (SIDE, SIDE)).astype(helper.tensor_dtype_to_np_dtype(t)) for t in (kind, other))
    node = helper.make_node("MatMulInteger" if precision == "int8" else "MatMul", ["a", "b"], ["c"])
    result = TensorProto.INT32 if precision == "int8" else TensorProto.FLOAT
    graph = helper.make_graph(
        [node], "product",
        [helper.make_tensor_value_info("a", kind, a.shape)], [helper.make_tensor_value_info("c", result, a.shape)],
        [numpy_helper.from_array(b, "b")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    times: list[float] = []
    while len(times) < 3 or sum(times) < 2:
        start = time.perf_counter()
        session.run(None, {"a": a})
        times.append(time.perf_counter() - start)
    return float(SIDE**3 / min(times))


def large(name: str) -> bool:
    return int(np.prod(networks.SPECS[name].input_shape)) >= LARGE


def batch_of(name: str, args: argparse.Namespace) -> int:
    return min(args.batch, LARGE_BATCH) if large(name) else int(args.batch)


def throughput_lines(args: argparse.Namespace, measured: Measurements) -> list[str]:
    found, notes = throughput(args, measured)
    if args.json:
        write_atomically(args.json, "".join(json.dumps(c.to_dict()) + "\n" for c in found))
    return [table(found), *(f"\n{note}." for note in notes), "", *ceilings(found, args, measured)]
