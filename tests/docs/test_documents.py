"""Every command and every block of Python in the documents runs, as printed but small (`documents.SMALLER`)."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import art_stand_in as art
import documents
import numpy as np
import onnx
import pytest
import shipped
import torch
from documents import DOCUMENTS, ROOT

from dualsmooth.cli import main
from dualsmooth.runtime.bundle.shipped import SHIPPED_IMAGES
from dualsmooth.runtime.commands import COMMANDS
from dualsmooth.runtime.commands import command as module
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.training.config import read_toml
from dualsmooth.training.networks.resnet import ResidualNetwork

NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
APART = [name for name in NAMES if name not in documents.TOGETHER]
SEEN = ("README.md", "runtime", "configs", "scripts", "examples", "Makefile", "pyproject.toml")
PIL = pytest.importorskip("PIL.Image")


def network(path: Path, outputs: int) -> None:
    """An ONNX classifier of 3x32x32 images, as other tools write them."""
    rng = np.random.default_rng(outputs)
    weights = {"w": rng.normal(size=(8, 3, 3, 3)), "v": rng.normal(size=(8, outputs))}
    nodes = [("Conv", ["x", "w"], "a"), ("Relu", ["a"], "b"), ("GlobalAveragePool", ["b"], "c")]
    made = [onnx.helper.make_node(kind, inputs, [out]) for kind, inputs, out in nodes]
    made += [onnx.helper.make_node("Flatten", ["c"], ["d"]), onnx.helper.make_node("MatMul", ["d", "v"], ["logits"])]
    tensor, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        made, "network", [tensor("x", kind, ["n", 3, 32, 32])], [tensor("logits", kind, ["n", outputs])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), str(path))


def photos(path: Path) -> None:
    for number in range(80):
        folder = path / ("cats", "dogs")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
        PIL.fromarray(pixels).save(folder / f"{number}.jpg")


def cifar10(path: Path) -> None:
    """CIFAR-10's own layout."""
    folder = path / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (20, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": [i % 10 for i in range(20)]}))


def log(path: Path) -> None:
    path.write_text(
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.61\t1\t0:00:01\n1\t8\t-1\t0.0\t0\t0:00:01\n"
    )


def picture(path: Path) -> None:
    with np.load(SHIPPED_IMAGES) as arrays:
        PIL.fromarray(arrays["x"][2]).save(path)


def settings(path: Path) -> None:
    path.write_text((ROOT / "configs" / "fashion-mnist.toml").read_text())


def certificate(path: Path) -> None:
    picture(path.parent / "image.png")
    run(f"dualsmooth certify runtime/data/fashion-mnist image.png --budget fixed:50 --json > {path.name}", path.parent)


def part(path: Path) -> None:
    dataset = "--dataset fashion-mnist --max 4 --seed 1 --budget fixed:50"
    shard = f"--shard {path.stem[-1]}/2 --out {path.name}"
    run(f"dualsmooth evaluate runtime/data/fashion-mnist {dataset} {shard}", path.parent)


RUNS = ("fashion", "second", "third")
HAD: dict[str, Callable[[Path], None]] = {
    "groups.json": lambda path: path.write_text('{"upper body": [0, 2, 3, 4, 6], "footwear": ["Sandal", 7, 9]}'),
    "image.png": picture,
    "photo.jpg": lambda path: PIL.fromarray(np.arange(5400).reshape(40, 45, 3).astype(np.uint8)).save(path),
    "cat.png": lambda path: PIL.fromarray(np.arange(3072).reshape(32, 32, 3).astype(np.uint8)).save(path),
    "photos": photos,
    "data": cifar10,
    "a.onnx": lambda path: network(path, 10),
    "b.onnx": lambda path: network(path, 10),
    "router.onnx": lambda path: network(path, 2),
    "checkpoint.pth.tar": lambda path: torch.save({"state_dict": ResidualNetwork(3, 3, 10).state_dict()}, path),
    "others.tsv": log,
    "bundles/changed": lambda path: run(
        f"dualsmooth export runtime/data/fashion-mnist --out {path} --precision fp16", path.parents[1]
    ),
    "certificate.json": certificate,
    "part1.jsonl": part,
    "part2.jsonl": part,
    "results.jsonl": lambda path: run(
        f"dualsmooth evaluate runtime/data/fashion-mnist --dataset fashion-mnist --max 4 --out {path.name} "
        "--budget fixed:50 --all-levels",
        path.parent,
    ),
    "my.toml": settings,
    **{f"runs/{name}": lambda path: shutil.copytree(trained(path.parents[1]), path) for name in RUNS},
}
"""What a reader has before the first command: made when a command first asks for it, unless one has made it before."""


def run(command: str, folder: Path) -> None:
    """Run a command in a reader's shell; that it fails, or warns, fails the test."""
    programs = folder.parent / "bin"
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    env |= {"DUALSMOOTH_DATA": str(folder.parent / "data"), "XDG_CACHE_HOME": str(folder.parent / "cache")}
    done = subprocess.run(["bash", "-ec", command], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    said = f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.returncode == 0, said
    assert "Traceback" not in done.stderr, said


def project(work: Path) -> Path:
    """A reader's copy of the project, with the programs of this environment first on the path."""
    folder, programs = work / "project", work / "bin"
    folder.mkdir(parents=True)
    programs.mkdir()
    for name in SEEN:
        (folder / name).symlink_to(ROOT / name)
    (folder / "docs").mkdir()
    (folder / "docs" / "results").symlink_to(ROOT / "docs" / "results")
    started = {"dualsmooth": "-m dualsmooth", "python": "", "torchrun": "-m torch.distributed.run"}
    for name, how in started.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {how} "$@"\n')
        (programs / name).chmod(0o755)
    shipped.fashion_mnist(work / "data")
    return folder


def trained(folder: Path) -> Path:
    """A small run, the same for each that is asked for."""
    given = folder / "runs" / "given"
    if not given.exists():
        run(documents.smaller("dualsmooth train --config configs/fashion-mnist.toml --out runs/given"), folder)
    return given


def give(command: str, folder: Path) -> None:
    asked = re.sub(r"--out \S+|> \S+", "", command)
    for name, make in HAD.items():
        if re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w/-])", asked) and not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            make(folder / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in APART if documents.commands(ROOT / name)])
def test_commands_run_in_order(name: str, tmp_path: Path) -> None:
    folder = project(tmp_path)
    for command in documents.commands(ROOT / name):
        if documents.elsewhere(command) is None:
            give(command, folder)
            run(documents.smaller(command), folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_its_help_run(name: str, tmp_path: Path) -> None:
    folder, parser = project(tmp_path), argparse.ArgumentParser()
    module(name).add_arguments(parser)
    for line in (parser.epilog or "").splitlines()[1:]:
        give(line, folder)
        run(documents.smaller(line.strip()), folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", documents.TOGETHER)
def test_blocks_run_from_top_to_bottom(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In one folder and one session, with nothing but what the page itself has made."""
    folder, names = project(tmp_path), {}
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DUALSMOOTH_DATA", str(tmp_path / "data"))
    for language, text in documents.blocks(ROOT / name):
        if language == "python":
            exec(compile(text, name, "exec"), names)
        for command in documents.commands_in(text) if language in documents.SHELLS else ():
            if documents.elsewhere(command) is None:
                run(documents.smaller(command), folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", APART)
def test_python_blocks_run(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project(tmp_path))
    art.stand_in(monkeypatch)
    images: np.ndarray = load_dataset(f"npz:{SHIPPED_IMAGES}").images[:2]
    names = {"image": images[0], "images": images}
    for language, text in documents.blocks(ROOT / name):
        if language == "python" and not documents.SERVER.search(text):
            exec(compile(text, name, "exec"), names)
    if name == "README.md":
        assert "<Certificate: Ankle boot (class 9), radius" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_settings_and_objects_can_be_read(name: str, tmp_path: Path) -> None:
    for language, text in documents.blocks(ROOT / name):
        if language == "toml":
            (tmp_path / "part.toml").write_text('dataset = "fashion-mnist"\n' + text)
            read_toml(tmp_path / "part.toml")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_text_names_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands, targets, extras and options, in blocks and in the running text: those too that no test runs."""
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for command in (*documents.commands(ROOT / name), *documents.spans(ROOT / name)):
        given, text = documents.options(command), ""
        if found := re.match(r"python (scripts/\S+\.py)", command):
            text = (ROOT / found[1]).read_text()
        elif (verb := documents.subcommand(command)) and not re.match(r"docker|pip", command):
            given = documents.options(command.split("dualsmooth", 1)[1])
            with pytest.raises(SystemExit) as ended:
                main([verb, "--help"])
            assert ended.value.code == 0, command
            text = capsys.readouterr().out
        elif found := re.match(r"make ([a-z]+)", command):
            assert found[1] in targets, command
            continue
        elif command.startswith("pip "):
            assert set(re.findall(r"dualsmooth\[([a-z]+)", command)) <= set(extras), command
            continue
        else:
            continue
        for option in given:
            assert re.search(rf"{option}(?![\w-])", text), f"{command}: no {option}"
