"""Options that travel as text: budgets, rules, noise, seeds, providers, data sets, addresses, server parameters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import toys
from fuzz.harness import attempt, fuzz
from fuzz.mutations import NUMBERS, TEXTS, VALUES
from hypothesis import strategies as st

import dualsmooth as ds
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.providers import provider_of
from dualsmooth.runtime.noise.streams import Seed, parse_noise
from dualsmooth.runtime.serving.address import open_wire
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.triton_model import ServerOptions
from dualsmooth.runtime.statistics.certification import checked_terms

PARTS = st.one_of(
    st.integers(-2, 400).map(str),
    NUMBERS.map(repr),
    TEXTS,
    st.sampled_from(["", "0.5", "0.25,0.5", "1e3", "1_000", " 7 ", "٣", "inf", "nan", "9" * 5000, "0x10", "+5", "100"]),
)


def joined(*kinds: str) -> st.SearchStrategy[str]:
    """One of the kinds, with parts behind colons."""
    return st.builds(lambda kind, parts: ":".join([kind, *parts]), st.sampled_from(kinds), st.lists(PARTS, max_size=4))


SMALL, SHARE = st.integers(1, 400), st.sampled_from(["0", "0.1", "0.25"])
BUDGETS = st.one_of(
    st.builds("fixed:{}:{}".format, SMALL, SMALL),
    st.builds("adaptive:{}:{}:{}".format, SMALL, SHARE, SMALL),
    st.builds("at-radius:{}:{}:{}".format, st.floats(0, 3), SMALL, SMALL),
    joined("fixed", "adaptive", "at-radius", "at-radii", "", "Fixed"),
    st.builds("at-radii:{}:{}".format, st.lists(PARTS, max_size=4).map(",".join), st.integers(1, 500)),
)


class Real:
    bundle: ds.Bundle


@pytest.fixture(scope="module", autouse=True)
def real(folder: Path) -> None:
    path = toys.write_bundle(folder / "b", sigmas=(0.25,), sigma_e=0.5, estimator_cuts=[], classifier_cuts=[0.2])
    Real.bundle = ds.read_bundle(path)


@fuzz("options", text=BUDGETS, share=0.3)
def test_budgets_read_back_from_their_text(text: str) -> None:
    budget = attempt(ds.parse_budget, text)
    assert ds.parse_budget(str(budget)) == budget
    if len(str(budget)) < 300 and budget.looks[-1] <= 10_000:
        assert list(budget.looks) == sorted(set(budget.looks))
        lower = budget.lower(budget.looks[0], 0, 0.001)
        assert 0 < lower < 1


@fuzz(
    "options",
    alpha=st.one_of(st.floats(0, 0.2), VALUES),
    rule=st.one_of(
        st.sampled_from(["interval", "paper", "multiscale"]),
        joined("single"),
        joined("confidence"),
        joined("fallback"),
        VALUES,
    ),
    route=st.one_of(st.none(), st.sampled_from(["median", "mode"]), VALUES),
    budget=st.one_of(st.just(ds.Fixed(10)), VALUES),
    share=0.2,
)
def test_terms(alpha: Any, rule: Any, route: Any, budget: Any) -> None:
    made = attempt(checked_terms, (0.25, 0.5), 0.5, 3, alpha=alpha, rule=rule, route=route, budget=budget)
    assert type(made.alpha) is float
    assert 0 < made.alpha <= 0.1
    assert made.route_kind in ("median", "mode")


@fuzz(
    "options", text=st.one_of(joined("auto", "float", "lattice", "table"), VALUES), seed=VALUES, index=VALUES, share=0.1
)
def test_noise_and_seeds(text: Any, seed: Any, index: Any) -> None:
    made = attempt(Seed.make, seed).noise
    made = attempt(parse_noise, text)
    made = attempt(attempt(Seed.make, seed, made).at, index)
    assert Seed.from_dict(made.to_dict()) == made


SERVER = ["engine", "provider", "threads", "batch_size", "manifest", *vars(Limits())]


@fuzz(
    "options",
    given=st.dictionaries(st.sampled_from(SERVER), PARTS, max_size=4),
    good=st.booleans(),
    share=0.2,
)
def test_parameters_of_a_server(given: dict[str, str], good: bool) -> None:
    usual = {"engine": "in-process", "threads": "1", "batch_size": "64", "manifest": "{}"} if good else {}
    values = {name: {"string_value": value} for name, value in {**usual, **given}.items()}
    options = attempt(ServerOptions.read, {"parameters": values})
    assert 0 <= options.threads <= 1024
    assert 1 <= options.batch_size <= 65536
    assert all(type(limit) is bool or 0 < limit < math.inf for limit in vars(options.limits).values())


@fuzz(
    "options",
    provider=st.one_of(st.just("cpu"), TEXTS),
    threads=st.one_of(st.integers(-2, 2), st.integers(1025), NUMBERS.filter(lambda n: not 2 < n < 1025)),
    share=0.1,
)
def test_providers_and_threads(provider: str, threads: Any) -> None:
    engine = attempt(OnnxEngine, Real.bundle, attempt(provider_of, provider), threads=threads)
    assert engine.provider == "cpu"
    assert threads in (0, 1, 2)


@fuzz(
    "options",
    name=st.one_of(joined("npz", "imagefolder", "cifar10", "fashion-mnist", "imagenet"), TEXTS),
    split=st.sampled_from(["test", "train", "all"]),
    url=joined("grpc", "http", "grpc:", "http://host", "grpc://127.0.0.1"),
    share=0.1,
)
def test_names_of_data_sets_and_servers(name: str, split: str, url: str, folder: Path) -> None:
    attempt(open_wire, url, "m", timeout=1.0, retries=0, shared_memory=False).close()
    attempt(load_dataset, name.replace("\0", ""), split=split, data_dir=folder)
