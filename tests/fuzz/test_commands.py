"""The command line: every command with any flags and values, in this process. Status 0, or 2 with one line."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import toys
from fuzz.harness import Refused, fuzz
from fuzz.mutations import changed_text, damaged
from hypothesis import strategies as st

import dualsmooth as ds
from dualsmooth import cli
from dualsmooth.runtime.errors import InputError, ServerError
from dualsmooth.runtime.evaluation.field_log import write_log

PASSES = 20_000
"""More than this are refused by the engine, so that no input samples for long."""


class Real:
    work: Path
    parsers: dict[str, argparse.ArgumentParser]
    certificate: dict[str, Any]
    picture: bytes


def limited(engine: Any) -> Callable[..., Any]:
    """The engine's logits, up to `PASSES` of one input."""
    real = engine.logits

    def logits(self: Any, name: str, batch: Any, sigma: float, width: int) -> Any:
        Real.passes += len(batch)  # type: ignore[attr-defined]
        if Real.passes > PASSES:  # type: ignore[attr-defined]
            raise InputError("so many passes are not drawn here")
        return real(self, name, batch, sigma, width)

    return logits


def refusing(kind: type[Exception]) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise kind("not here")

    return refuse


@pytest.fixture(scope="module", autouse=True)
def real(folder: Path) -> Any:
    import dualsmooth.export.sources
    import dualsmooth.runtime.evaluation.ray_workers
    import dualsmooth.training.stages.train
    from dualsmooth.runtime.commands import COMMANDS, command, demo, doctor, report
    from dualsmooth.runtime.datasets import fashion_mnist
    from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
    from dualsmooth.runtime.serving import address
    from dualsmooth.runtime.studio.server import StudioServer

    make_work(folder / "work")
    Real.work = folder / "work"
    Real.parsers = {}
    for name in set(COMMANDS) - {"bench"}:
        Real.parsers[name] = cli._Parser(prog=f"dualsmooth {name}")
        command(name).add_arguments(Real.parsers[name])
    found = doctor.examine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxEngine, "logits", limited(OnnxEngine))
        patch.setattr(doctor, "examine", lambda: found)
        patch.setattr(demo, "run_demo", lambda out, **_: None)
        patch.setattr(StudioServer, "serve_forever", lambda _: None)
        patch.setattr(webbrowser, "open", lambda _: True)
        patch.setattr(report, "plot_curves", lambda curves, out, **_: out)
        patch.setattr(fashion_mnist, "FASHION_MNIST_DIR", folder / "none")
        patch.setattr(dualsmooth.runtime.evaluation.ray_workers, "RayWorkers", refusing(InputError))
        patch.setattr(dualsmooth.training.stages.train, "train", lambda *_, **__: {})
        patch.setattr(dualsmooth.export.sources, "export_source", refusing(InputError))
        for scheme in address.WIRES:
            patch.setitem(address.WIRES, scheme, refusing(ServerError))
        yield


def make_work(work: Path) -> None:
    """A folder with one good file of each kind, and some that are not."""
    work.mkdir()
    with contextlib.chdir(work):
        path = toys.write_bundle(
            Path("bundle"), sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
        )
        PIL.Image.fromarray(np.array([[230, 20]], np.uint8)).save("image.png")
        np.save("image.npy", toys.image(0.9, 0.1))
        np.save("nan.npy", np.full(toys.SHAPE, np.nan, np.float32))
        x = np.random.default_rng(0).integers(0, 256, (4, 1, 2), np.uint8)
        np.savez("data.npz", x=x, y=np.array([0, 1, 0, 1]))
        smoother = ds.load(path, threads=1)
        made = smoother.certify(toys.image(0.9, 0.1), budget=ds.Fixed(100, n0=10), seed=1)
        Real.certificate, Real.picture = made.to_dict(), Path("image.png").read_bytes()
        Path("certificate.json").write_text(made.to_json())
        command = [
            "evaluate",
            "bundle",
            "--dataset",
            "npz:data.npz",
            "--out",
            "results.jsonl",
            "--budget",
            "fixed:100:10",
        ]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert cli.main([*command, "--all-levels"]) == 0
        from dualsmooth.runtime.evaluation.results import load_results

        write_log(load_results("results.jsonl"), "log.tsv")
        Path("run.toml").write_text('dataset = "npz:data.npz"\n')
        Path("odd.bin").write_bytes(b"\xff\0\n[")
        Path("empty").touch()


WORDS = [
    "bundle",
    "image.png",
    "image.npy",
    "nan.npy",
    "certificate.json",
    "results.jsonl",
    "log.tsv",
    "data.npz",
    "run.toml",
    "odd.bin",
    "empty",
    "missing",
    "no/such/file",
    ".",
    "..",
    "out.html",
    "out.csv",
    "out.tex",
    "out.tsv",
    "out.svg",
    "new",
    "npz:data.npz",
    "npz:odd.bin",
    "imagefolder:.",
    "cifar10",
    "fashion-mnist",
    "grpc://localhost:1",
    "http://x:y",
    "fixed:20:5",
    "adaptive:400:0.1:5",
    "at-radius:0.1:100:5",
    "at-radii:0,0.1:64:5",
    "fixed:99999999",
    "fixed:0",
    "interval",
    "paper",
    "multiscale",
    "single:0.5",
    "single",
    "oracle",
    "median",
    "mode",
    "local",
    "ray",
    "cpu",
    "cuda",
    "test",
    "train",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "0.001",
    "0.05",
    "0.25,0.5",
    "0,1",
    "1/2",
    "2/1",
    "nan",
    "inf",
    "1e400",
    "9" * 30,
    "9" * 5000,
    "1" * 400,
    "٣",
    "",
    " ",
    "a\nb",
    "\udcff",
    "é",
    "x" * 300,
    "--",
    "-",
    "=",
    "lattice",
    "float:philox",
    "int8",
    "fp16",
    "0.25=a.onnx",
    "labels.votes=3",
    "x=",
    "in-process",
    "bls",
    "1,1,2",
    "{}",
    "\x1b[31m",
]
FITTING = {
    "bundle": "bundle",
    "images": "image.png image.npy",
    "certificate": "certificate.json",
    "results": "results.jsonl log.tsv",
    "dataset": "npz:data.npz",
    "out": "new.jsonl new.html new.csv new",
    "budget": "fixed:20:5 at-radius:0.1:64:5",
    "alpha": "0.01",
    "rule": "interval paper single:0.5 oracle",
    "route": "median mode",
    "seed": "7",
    "replay": "image.npy",
    "radii": "0,0.5",
    "n": "20 50",
    "passes": "100,1000",
    "threads": "1",
    "batch_size": "16 256",
    "config": "run.toml",
    "skip": "2",
    "max": "3",
    "indices": "0,2",
    "shard": "1/2",
    "provider": "cpu",
    "path": "new",
    "set": "labels.votes=3",
    "at_radii": "0,0.1",
}


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command with its positional arguments and some of its options; values mostly fit, some words are anything."""
    if draw(st.integers(0, 40)) == 0:
        return draw(st.lists(st.sampled_from(WORDS), max_size=4))
    name = sorted(Real.parsers)[draw(st.integers(0, len(Real.parsers) - 1))]
    line, odd = [name], draw(st.integers(0, 3))
    actions = [a for a in Real.parsers[name]._actions if a.dest != "help" or draw(st.integers(0, 30)) == 0]

    def value(dest: str) -> str:
        good = FITTING.get(dest, "1").split()
        if odd and draw(st.integers(0, 3)) == 0:
            return WORDS[draw(st.integers(0, len(WORDS) - 1))]
        return good[draw(st.integers(0, len(good) - 1))]

    for action in actions:
        if action.option_strings and not action.required and draw(st.integers(0, 3)):
            continue
        if action.required and odd == 3 and draw(st.integers(0, 9)) == 0:
            continue
        line += action.option_strings[:1]
        if action.nargs != 0:
            line += [value(action.dest) for _ in range(2 if action.nargs == "+" and draw(st.booleans()) else 1)]
    if odd == 3 and draw(st.integers(0, 5)) == 0:
        line.insert(draw(st.integers(0, len(line))), WORDS[draw(st.integers(0, len(WORDS) - 1))])
    return line


FILES = st.one_of(
    st.none(),
    st.none(),
    st.none(),
    st.tuples(
        st.just("certificate.json"),
        changed_text(lambda: [Real.certificate]).map(lambda t: t.encode("utf-8", "replace")),
    ),
    st.tuples(st.sampled_from(["image.png", "results.jsonl", "log.tsv", "data.npz"]), damaged(lambda: [Real.picture])),
)


@fuzz("command lines", line=lines(), file=FILES, forbidden=False)
def test_status_and_lines(line: list[str], file: tuple[str, bytes] | None, folder: Path) -> None:
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(Real.work, run)
    if file is not None:
        (run / file[0]).write_bytes(file[1])
    Real.passes = 0  # type: ignore[attr-defined]
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    with contextlib.chdir(run), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(line)
        except SystemExit as stop:
            status = stop.code  # type: ignore[assignment]
    said = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert status in ((0, 1, 2) if line[:1] == ["doctor"] else (0, 2)), said
    assert "Traceback" not in said
    if status == 2:
        ours = [part for part in said.splitlines() if part.startswith("dualsmooth")]
        assert len(ours) == 1, said
        assert said.splitlines()[-1] == ours[0], said
        assert "\x1b" not in ours[0]
        raise Refused
    if "--json" in line and "-h" not in line and line[0] in ("certify", "verify"):
        for part in out.buffer.getvalue().decode().splitlines():  # type: ignore[attr-defined]
            json.loads(part)
    assert os.listdir(run)
