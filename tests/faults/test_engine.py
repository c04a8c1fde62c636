"""An engine that fails at its k-th batch, in any way: no certificate for the images it touched, the others as ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import dualsmooth as ds
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.formats import load_dataset
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.replies import Collected
from dualsmooth.runtime.serving.service import Service

Logits = npt.NDArray[np.float32]


def raises(logits: Logits) -> Any:
    raise RuntimeError("out of\nmemory")


def one_nan(logits: Logits) -> Any:
    logits = logits.copy()
    logits[-1, 0] = np.nan
    return logits


WAYS: dict[str, Callable[[Logits], Any]] = {
    "raises": raises,
    "one NaN": one_nan,
    "infinite": lambda logits: np.where(logits == logits.max(), np.inf, logits),
    "all NaN": lambda logits: np.full_like(logits, np.nan),
    "more rows": lambda logits: np.concatenate([logits, logits[:1]]),
    "fewer rows": lambda logits: logits[:-1],
    "no rows": lambda logits: logits[:0],
    "more classes": lambda logits: np.hstack([logits, logits[:, :1]]),
    "transposed": lambda logits: np.ascontiguousarray(logits.T),
    "another axis": lambda logits: logits[None],
    "nothing": lambda logits: None,
    "a list": lambda logits: logits.tolist(),
    "texts": lambda logits: logits.astype(object).astype(str),
}
SEED, BUDGET, BATCH = 3, ds.Fixed(200), 64


class Broken:
    """Sessions that count their runs together; run number `at` goes wrong."""

    def __init__(self, smoother: ds.Smoother, way: Callable[[Logits], Any], at: int) -> None:
        self.way, self.at, self.runs = way, at, 0
        sessions = smoother.engine._sessions
        for name, session in sessions.items():
            sessions[name] = _Session(self, session)


class _Session:
    def __init__(self, broken: Broken, session: Any) -> None:
        self._broken, self._session = broken, session

    def get_providers(self) -> list[str]:
        return list(self._session.get_providers())

    def run(self, outputs: list[str], feed: dict[str, Any]) -> list[Any]:
        (logits,) = self._session.run(outputs, feed)
        self._broken.runs += 1
        return [self._broken.way(logits)] if self._broken.runs - 1 == self._broken.at else [logits]


def smoother_of(source: Path) -> ds.Smoother:
    return ds.load(source / "bundle", threads=1, batch_size=BATCH)


@pytest.fixture(scope="module")
def dataset(source: Path) -> Dataset:
    return load_dataset(f"npz:{source / 'd.npz'}")


@pytest.fixture(scope="module")
def right(source: Path, dataset: Dataset) -> tuple[list[str], int]:
    """The certificates of the first images (JSON), and how many runs of the engine they take."""
    smoother = smoother_of(source)
    counter = Broken(smoother, lambda logits: logits, -1)
    made = smoother.certify_many(dataset.images[:6], seed=SEED, budget=BUDGET)
    return [certificate.to_json() for certificate in made], counter.runs


def places(runs: int) -> list[int]:
    """Which runs go wrong; there are at least `runs` of them, however the images are packed into batches."""
    assert runs > 20
    return sorted({0, 1, 2, runs // 3, runs // 2, runs - 1})


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_ends_there_and_what_came_before_is_right(
    source: Path, dataset: Dataset, right: tuple[list[str], int], way: str
) -> None:
    wanted, runs = right
    for at in places(runs):
        smoother = smoother_of(source)
        Broken(smoother, WAYS[way], at)
        made: list[str] = []
        stream = smoother.certify_many(dataset.images[:6], seed=SEED, budget=BUDGET)
        with pytest.raises(ds.EngineError) as caught:
            made.extend(certificate.to_json() for certificate in stream)
        assert "\n" not in str(caught.value)
        assert made == wanted[: len(made)]
        assert len(made) < len(wanted)
        again = [c.to_json() for c in smoother.certify_many(dataset.images[:6], seed=SEED, budget=BUDGET)]
        assert again == wanted  # nothing of the failed run is left in the smoother


@pytest.mark.parametrize("way", WAYS)
def test_one_image_has_no_certificate(source: Path, dataset: Dataset, right: tuple[list[str], int], way: str) -> None:
    for at in (0, 1, 2, 3):
        smoother = smoother_of(source)
        Broken(smoother, WAYS[way], at)
        with pytest.raises(ds.EngineError):
            smoother.certify(dataset.images[0], seed=SEED, budget=BUDGET)
        assert smoother.certify(dataset.images[0], seed=SEED, budget=BUDGET).to_json() == right[0][0]


@pytest.mark.parametrize("way", WAYS)
def test_an_evaluation_keeps_the_rows_before_and_goes_on(
    source: Path, dataset: Dataset, right: tuple[list[str], int], tmp_path: Path, way: str
) -> None:
    wanted, runs = right
    for at in places(runs):
        out = tmp_path / f"{at}.jsonl"
        smoother = smoother_of(source)
        Broken(smoother, WAYS[way], at)
        with pytest.raises(ds.EngineError, match=r"^image \d: "):
            evaluate(smoother, dataset, out, indices=range(6), seed=SEED, budget=BUDGET)
        kept = [json.dumps(json.loads(line)["certificate"]) for line in out.read_text().splitlines()[1:]]
        assert kept == wanted[: len(kept)]
        evaluate(smoother, dataset, out, indices=range(6), seed=SEED, budget=BUDGET)
        assert [result.certificate.to_json() for result in load_results(out)] == wanted


@pytest.mark.parametrize("way", WAYS)
def test_a_service_fails_the_requests_of_that_batch_and_answers_the_others(
    source: Path, dataset: Dataset, right: tuple[list[str], int], way: str
) -> None:
    wanted, runs = right
    for at in places(runs):
        smoother = smoother_of(source)
        Broken(smoother, WAYS[way], at)
        service = Service(smoother, Limits(max_open=2, allow_seed=True))
        replies = [Collected() for _ in wanted]
        for index, reply in enumerate(replies):
            parameters = {"seed": SEED, "index": index, "budget": str(BUDGET)}
            service.submit(dataset.images[index], parameters, reply)
        for reply in replies:
            assert reply.done.wait(60)
        assert 1 <= sum(reply.error is not None for reply in replies) <= 2  # those of one batch
        for reply, certificate in zip(replies, wanted, strict=True):
            if reply.error is not None:
                assert isinstance(reply.error, ds.EngineError)
                assert reply.answer is None
            else:
                assert reply.answer is not None
                assert reply.answer.to_json() == certificate
        last = Collected()
        service.submit(dataset.images[0], {"seed": SEED, "index": 0, "budget": str(BUDGET)}, last)
        assert last.done.wait(60)
        assert last.answer is not None
        assert last.answer.to_json() == wanted[0]
        service.close()
