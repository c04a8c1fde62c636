"""One real Triton server a session: fetched into build/ if missing, on free ports, always stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import toys
from triton_server import TritonServer

import dualsmooth as ds
from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.serving.repository import fill_repository

THREADS = 1


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two levels with an expert each; some votes of the larger one are not sure."""
    return toys.write_bundle(
        tmp_path_factory.mktemp("toy") / "bundle",
        sigmas=(0.25, 0.5),
        sigma_e=0.5,
        estimator_cuts=[0.6],
        classifier_cuts=[0.2, 0.25],
        sure=(0.55,),
    )


@pytest.fixture(scope="session")
def lone_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One level without a router, for pictures of any size."""
    path = tmp_path_factory.mktemp("lone") / "bundle"
    return toys.write_bundle(path, sigmas=(0.5,), classifier_cuts=[0.2], preprocessing=Preprocessing(toys.SHAPE, 8))


def adopt(source: Path, repository: Path, name: str, **parameters: str) -> Path:
    """Move a filled model into a repository under another name, with other configuration parameters."""
    model = source.rename(repository / name)
    config = (model / "config.pbtxt").read_text()
    config = re.sub(r'^name: ".*"', f'name: "{name}"', config, count=1, flags=re.M)
    for key, value in parameters.items():
        config, found = re.subn(f'(key: "{key}" value {{ string_value: )"[^"]*"', rf'\1"{value}"', config)
        assert found == 1
    (model / "config.pbtxt").write_text(config)
    return model


@pytest.fixture(scope="session")
def repository(toy_bundle: Path, lone_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy bundle as it is filled, and beside it: over BLS, with tight limits, one level alone, and the shipped
    bundle."""
    work = tmp_path_factory.mktemp("triton")
    out = work / "repository"
    fill_repository(toy_bundle, out, threads=THREADS, allow_seed=True)
    fill_repository(toy_bundle, work / "bls", threads=THREADS, placement="bls", allow_seed=True)
    adopt(work / "bls" / "dual_smoothing", out, "over_bls")
    fill_repository(toy_bundle, work / "limited", threads=THREADS, batch_size=16, allow_seed=True)
    adopt(
        work / "limited" / "dual_smoothing",
        out,
        "limited",
        max_passes="3000000",
        max_seconds="0.5",
        max_image_values="8",
        max_open="1",
        max_waiting="1",
    )
    fill_repository(lone_bundle, work / "lone", threads=THREADS, allow_seed=True)
    adopt(work / "lone" / "dual_smoothing", out, "lone")
    fill_repository(SHIPPED_BUNDLE, work / "fashion", threads=THREADS, allow_seed=True)
    adopt(work / "fashion" / "dual_smoothing", out, "fashion")
    adopt(work / "fashion" / "dual_smoothing_stream", out, "fashion_stream")
    return out


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with TritonServer([repository], tmp_path_factory.mktemp("log") / "triton.log") as running:
        yield running


@pytest.fixture(scope="session")
def local(toy_bundle: Path) -> ds.Smoother:
    return ds.load(toy_bundle, threads=THREADS)


@pytest.fixture(params=["grpc", "http"])
def url(server: TritonServer, request: pytest.FixtureRequest) -> str:
    return f"{request.param}://127.0.0.1:{server.grpc if request.param == 'grpc' else server.http}"


@pytest.fixture
def remote(url: str) -> Iterator[ds.RemoteSmoother]:
    with ds.connect(url, timeout=60) as smoother:
        yield smoother


@pytest.fixture
def grpc_url(server: TritonServer) -> str:
    return f"grpc://127.0.0.1:{server.grpc}"
