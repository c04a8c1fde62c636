"""What training costs: passes of each objective, its time against `gaussian`, and bfloat16 against float32.

python scripts/training_costs.py --out docs/training-costs.md --force
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frame import add_page, machine, parsed, publish
from torch.nn.modules.module import register_module_forward_hook

from dualsmooth.runtime.engine.instruction_set import FAST_BF16
from dualsmooth.training import ClassifierConfig, Config
from dualsmooth.training.data import Augmentation, TrainingData
from dualsmooth.training.loop.precision import autocast_for
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.networks.network import ModelSpec, Network
from dualsmooth.training.objectives import OBJECTIVES, Objective, objective_class
from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.gaussian import Gaussian
from dualsmooth.training.objectives.reweighted import Reweighted
from dualsmooth.training.stages.classifier import train_classifier

SIGMA, EPOCHS, IMAGES, BATCH = 0.5, 10, 128, 32
WIDE, WIDE_BATCH, STEPS = "resnet9", 64, 3
PAGE = """# What training costs

Seconds of one thread's own time. Written by `python scripts/training_costs.py` on {machine}.

## Objectives

Passes of the network for each image and epoch, averaged over {epochs} epochs of one run, with all votes that are
counted between the epochs, at each objective's default settings; and the time of that run against `gaussian` in the
same sitting (`small-cnn`, {images} images of 1x28x28, one level). Votes need no backward pass; that of an attack
reaches the input only, the optimiser's also the weights.

| objective | forward | backward | time against gaussian |
| --- | ---: | ---: | ---: |
{objectives}

## bfloat16

Seconds a step of `{wide}` at width 1 (batch of {batch}, 3x32x32, `gaussian`): median of {rounds} rounds of {steps}
steps, both number formats in turn.

| float32 | bfloat16 | float32 / bfloat16 |
| ---: | ---: | ---: |
| {float32:.2f} | {bfloat16:.2f} | {ratio:.2f}x |

`autocast = "auto"` takes bfloat16 where the processor has {fast}; here it takes {taken}.
"""


def stripes() -> TrainingData:
    """Grey images of ten classes, a bright stripe at the place of each."""
    generator = np.random.default_rng(0)
    labels = np.arange(IMAGES) % 10
    images = generator.integers(0, 60, (IMAGES, 1, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label + 3 : 2 * label + 7] += 180
    return TrainingData(images, labels, images[:10], labels[:10], tuple("0123456789"), Augmentation())


def cost(objective: Objective, data: TrainingData) -> tuple[float, float, float]:
    """Forward and backward passes for each image and epoch, and the seconds of a whole training."""
    passes: Counter[str] = Counter()

    def count(module: torch.nn.Module, _: Any, logits: torch.Tensor) -> None:
        if isinstance(module, Network):
            passes["forward"] += len(logits)
            if logits.requires_grad:
                logits.register_hook(lambda gradient: passes.update(backward=len(gradient)))  # type: ignore[no-untyped-call]

    settings = ClassifierConfig(epochs=EPOCHS, batch_size=BATCH, autocast="off", objective=objective)
    config = Config("stripes", sigmas=(SIGMA,), classifier=settings)
    handle = register_module_forward_hook(count)
    try:
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            train_classifier(Path(folder) / "c.pt", data, config, levels=config.sigmas)
            seconds = time.process_time() - start
    finally:
        handle.remove()
    return passes["forward"] / (IMAGES * EPOCHS), passes["backward"] / (IMAGES * EPOCHS), seconds


def objectives() -> list[str]:
    """A row for each objective."""
    data, rows = stripes(), []
    cost(Gaussian(), data)  # warm
    for name in OBJECTIVES:
        objective = objective_class(name)()
        if isinstance(objective, Reweighted):  # so that all images stay, whatever so short a training makes of them
            objective = dataclasses.replace(objective, threshold=0.0)
        forward, backward, seconds = cost(objective, data)
        _, _, gaussian = cost(Gaussian(), data)
        rows.append(f"| {name} | {forward:.1f} | {backward:.1f} | {seconds / gaussian:.1f}x |")
    return rows


def precisions(rounds: int) -> dict[bool, float]:
    """Median seconds a step, in float32 (False) and bfloat16 (True)."""
    network = build(ModelSpec(WIDE, 1.0, 10, (3, 32, 32), (0.5,) * 3, (0.25,) * 3))
    initialise(network, torch.Generator().manual_seed(0))
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (WIDE_BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator)
    batch = Batch(network, clean, torch.arange(WIDE_BATCH) % 10, torch.full((WIDE_BATCH,), SIGMA), generator)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds + 1):
        for half in seconds:
            start = time.process_time()
            for _ in range(STEPS):
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    value = Gaussian().loss(batch)
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if turn:  # the first is to warm up
                seconds[half].append((time.process_time() - start) / STEPS)
    return {half: statistics.median(values) for half, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    add_page(parser)
    args = parsed(parser)
    torch.set_num_threads(1)
    found = precisions(args.rounds)
    page = PAGE.format(
        machine=machine("torch"), epochs=EPOCHS, images=IMAGES,
        wide=WIDE, batch=WIDE_BATCH, rounds=args.rounds, steps=STEPS, float32=found[False], bfloat16=found[True],
        fast=" or ".join(FAST_BF16),
        ratio=found[False] / found[True], taken={"bf16": "bfloat16", "off": "float32"}[autocast_for("auto", "cpu")],
        objectives="\n".join(objectives()),
    )  # fmt: skip
    publish(page, args.page)


if __name__ == "__main__":
    main()
