"""The measurements: what is counted, how ratios are formed, and the line that `--json` prints."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.commands import bench
from dualsmooth.runtime.commands.bench import BARE, OURS, PYTORCH, Comparison, bare, compare, ours, table
from dualsmooth.runtime.engine.instruction_set import described
from dualsmooth.runtime.engine.providers.cores import usable_cores
from dualsmooth.runtime.noise.streams import Noise

KEYS = ["network", "provider", "precision", "passes_per_second", "ratio_to_bare", "ratio_to_pytorch", "processor"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )


@pytest.fixture
def smoother(bundle: Path) -> ds.Smoother:
    return ds.load(bundle, threads=1, batch_size=64)


def counting(smoother: ds.Smoother) -> list[int]:
    """The number of rows of each call of the middle level's network."""
    seen, session = [], smoother.engine._sessions["classifier_1.onnx"]

    class Counting:
        get_providers = session.get_providers

        def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> Any:
            seen.append(len(feed["x"]))
            return session.run(outputs, feed)

    smoother.engine._sessions["classifier_1.onnx"] = Counting()
    return seen


@pytest.mark.parametrize("noise", [Noise(), Noise("lattice")])
def test_our_loop_says_how_many_passes_it_ran(smoother: ds.Smoother, noise: Noise) -> None:
    seen = counting(smoother)
    for passes in (1000, 640, 300, 32, 2):
        seen.clear()
        assert ours(smoother, noise)(passes) == sum(seen) == passes


def test_the_bare_session_runs_whole_batches(smoother: ds.Smoother) -> None:
    seen = counting(smoother)
    assert bare(smoother)(640) == 640
    assert seen == [64] * 10
    assert bare(smoother)(641) == 704


def test_ratios_are_medians_within_turns() -> None:
    rates = {OURS: [10.0, 100.0, 30.0], BARE: [20.0, 100.0, 100.0], PYTORCH: [1.0, 50.0, 10.0]}
    found = Comparison("n", "cpu", "fp32", rates)
    assert found.ratio(BARE) == 0.5
    assert found.ratio(PYTORCH) == 3.0
    assert found.ratio("nobody") is None
    assert list(found.to_dict()) == KEYS
    assert found.to_dict()["passes_per_second"] == 30.0
    alone = Comparison("m", "cpu", "int8", {OURS: [5.0], BARE: [10.0]})
    assert alone.to_dict()["ratio_to_pytorch"] is None
    assert table([found, alone]).splitlines()[2:] == [
        "| n | cpu | fp32 | 30 | 0.500 | 3.00 |",
        "| m | cpu | int8 | 5 | 0.500 | – |",
    ]


def test_loops_take_turns(smoother: ds.Smoother) -> None:
    order: list[int] = []

    def other(passes: int) -> int:
        order.append(passes)
        time.sleep(0.001)
        return passes

    found = compare(smoother, "toy", {PYTORCH: other}, seconds=0.01, turns=3)
    assert {name: len(rates) for name, rates in found.rates.items()} == {OURS: 3, BARE: 3, PYTORCH: 3}
    assert order[:2] == [64, 128]
    assert len(order) == 5
    assert len({*order[2:]}) == 1
    with pytest.raises(ds.InputError, match="turns"):
        compare(smoother, "toy", {}, turns=0)


def test_the_command_without_torch(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(bench, "import_module", missing)
    few = ["--seconds", "0.01", "--turns", "2", "--threads", "1"]
    assert main(["bench", str(bundle), "--json", *few]) == 0
    out, err = capsys.readouterr()
    line = json.loads(out)
    assert list(line) == KEYS
    assert (line["network"], line["provider"], line["precision"]) == (str(bundle), "cpu", "fp32")
    assert line["passes_per_second"] > 0
    assert line["ratio_to_bare"] > 0
    assert line["ratio_to_pytorch"] is None
    assert "no PyTorch loop (torch is not installed" in err
    assert main(["bench", "resnet20", *few]) == 2
    assert "network resnet20 in fp32: torch is not installed" in capsys.readouterr().err
    assert main(["bench", str(bundle), "--provider", "cuda", *few]) == 2
    assert main(["bench", str(bundle), "--noise", "white", *few]) == 2


def test_the_command_with_a_pytorch_loop(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    class Heavy:
        """Stands for dualsmooth.export.bench."""

        bundle = staticmethod(lambda name, precision, work: ds.read_bundle(bundle))
        module = staticmethod(lambda name: None)

        @staticmethod
        def plain_loop(module: Any, shape: Any, sigma: float, batch: int, threads: int) -> bench.Loop:
            assert (shape, sigma, batch) == ((1, 1, 2), 0.5, 256)
            return lambda passes: passes

    monkeypatch.setattr(bench, "import_module", lambda name: Heavy)
    assert main(["bench", "toy", "--seconds", "0.01", "--turns", "2", "--threads", "1"]) == 0
    machine, _, head, _, row = capsys.readouterr().out.strip().splitlines()
    assert machine == f"{usable_cores()} cores of an {described()}"
    assert head == "| network | provider | precision | passes/s | of bare session | x PyTorch |"
    assert row.startswith("| toy | cpu | fp32 |")
