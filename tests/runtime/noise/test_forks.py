"""Processes, threads and event loops: forks, pickles, closing, sharing one smoother."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.engine.providers.cpu import Cpu
from dualsmooth.runtime.errors import BundleError, DualSmoothError, EngineError
from dualsmooth.runtime.noise.forks import ForkLock, forks
from dualsmooth.runtime.smoothing.smoother import Smoother

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # Python 3.12 and later
]
BUDGET = ds.Fixed(600)
IMAGES = [toys.image(0.5 + i / 40, 0.3 + i / 20) for i in range(8)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.two_levels(tmp_path_factory.mktemp("forks") / "bundle", classifier_cuts=(0.5, 0.4))


@pytest.fixture(scope="module")
def smoother(path: Path) -> Smoother:
    opened = ds.load(path, threads=2)
    certify(opened)  # so that its threads run
    return opened


def certify(smoother: Smoother, number: int = 0, seed: int | None = 7) -> str:
    return smoother.certify(IMAGES[number], budget=BUDGET, seed=seed).to_json()


def in_child(work: Callable[[], str], seconds: float = 20) -> str:
    """What `work` returns, or raises, in a forked child; the test fails where the child hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        if not select.select([pipe], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
        said = pipe.read().decode()
    os.waitpid(child, 0)
    assert said, f"the child said nothing within {seconds} s"
    return said


def test_a_forked_child_certifies_as_its_parent_does(smoother: Smoother) -> None:
    assert in_child(lambda: certify(smoother)) == certify(smoother)


def test_so_does_the_child_of_a_child(smoother: Smoother) -> None:
    assert in_child(lambda: in_child(lambda: f"{certify(smoother)} {forks()}")) == f"{certify(smoother)} {forks() + 2}"


def test_no_process_shares_entropy_with_another(smoother: Smoother) -> None:
    def entropy() -> str:
        return str(smoother.certify(IMAGES[0], budget=BUDGET).seed.entropy)

    found = [entropy(), in_child(entropy), in_child(entropy), in_child(lambda: in_child(entropy)), entropy()]
    assert len(set(found)) == 5


def test_a_fork_while_other_threads_certify(smoother: Smoother) -> None:
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            certify(smoother, 1)

    with ThreadPoolExecutor(2) as threads:
        busy = [threads.submit(go_on) for _ in range(2)]
        try:
            found = [in_child(lambda: certify(smoother)) for _ in range(6)]
        finally:
            over.set()
        for work in busy:
            work.result()
    assert set(found) == {certify(smoother)}


def test_what_began_before_a_fork_is_refused_in_the_child(smoother: Smoother) -> None:
    """Its noise is the parent's."""
    begun = smoother.certify_many(IMAGES, budget=BUDGET, in_flight=1)
    next(begun)
    said = in_child(lambda: next(begun).to_json())
    assert said.startswith("EngineError: this run was begun in another process")
    assert "\n" not in said
    assert len(list(begun)) == len(IMAGES) - 1  # the parent goes on


def test_a_lock_that_another_thread_held_is_free_in_the_child() -> None:
    lock, held, over = ForkLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            over.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)

    def take() -> str:
        with lock:
            return "taken"

    try:
        assert in_child(take, 5) == "taken"
    finally:
        over.set()
        thread.join()


_shared: Smoother | None = None


def shared(number: int) -> str:
    assert _shared is not None
    return certify(_shared, number)


@pytest.mark.parametrize("kind", ["pool", "executor"])
def test_pools_of_forked_processes(smoother: Smoother, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "_shared", smoother)
    context = multiprocessing.get_context("fork")
    if kind == "pool":
        with context.Pool(2) as pool:
            found = pool.map_async(shared, range(4)).get(30)
    else:
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            found = list(executor.map(shared, range(4), timeout=30))
    assert found == [certify(smoother, number) for number in range(4)]


def test_a_smoother_travels_to_a_spawned_process(smoother: Smoother) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert executor.submit(certify, smoother).result(60) == certify(smoother)


def test_a_child_ends_although_threads_of_the_engine_are_not_there(path: Path) -> None:
    """An ordinary end, with destructors, as gunicorn's and joblib's children have."""
    script = f"""
import os, sys
import dualsmooth as ds
import numpy as np
image = np.full((1, 1, 2), 0.7, np.float32)
smoother = ds.load({str(path)!r}, threads=2)
smoother.certify(image, budget=ds.Fixed(600))
child = os.fork()
smoother.certify(image, budget=ds.Fixed(600))
if child == 0:
    sys.exit(3)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("child 3\n", "", 0)


def test_a_provider_that_does_not_survive_a_fork_is_refused_in_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ds.load(path)
    monkeypatch.setattr(Cpu, "survives_fork", False)  # as of every other provider: sessions are not opened again
    said = in_child(lambda: certify(other))
    assert said.startswith("ProviderError: provider cpu was started before this process was forked")
    assert "spawn" in said
    assert "\n" not in said


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_copy_opens_the_bundle_again(path: Path, how: str) -> None:
    own = ds.load(path, threads=1, batch_size=64, provider_options={"arena": False})
    other = pickle.loads(pickle.dumps(own)) if how == "pickle" else copy.deepcopy(own)
    assert other.engine is not own.engine
    assert other.batch_size == 64
    assert other.engine.settings() == own.engine.settings()
    assert other.engine.settings()["provider_options"] == {"arena": False}
    own.close()
    assert certify(other) == certify(ds.load(path))


def test_a_pickle_holds_plain_values_and_one_class(smoother: Smoother) -> None:
    data = pickle.dumps(smoother)
    assert len(data) < 1000
    assert data.count(b"dualsmooth.runtime") == 1


def test_a_bundle_that_changed_meanwhile_is_refused(path: Path, tmp_path: Path) -> None:
    there = tmp_path / "bundle"
    shutil.copytree(path, there)
    data = pickle.dumps(ds.load(there))
    manifest = there / "manifest.json"
    manifest.write_text(manifest.read_text().replace("class 0", "class x"))
    with pytest.raises(BundleError, match="another bundle than when the smoother was pickled"):
        pickle.loads(data)
    shutil.rmtree(there)
    with pytest.raises(DualSmoothError):
        pickle.loads(data)


def test_a_closed_smoother_says_so(path: Path) -> None:
    with ds.load(path) as opened:
        certify(opened)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"were closed; load the bundle again"):
            certify(opened)
        opened.close()
    assert in_child(lambda: certify(opened)).startswith("EngineError: the networks of")


@pytest.mark.parametrize("threads", [2, 4, 8])
def test_threads_share_a_smoother(smoother: Smoother, threads: int) -> None:
    alone = [certify(smoother, number) for number in range(8)]
    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(lambda n: certify(smoother, n % 8), range(24))) == alone * 3


def test_two_streams_of_images_in_two_threads(smoother: Smoother) -> None:
    def stream() -> list[str]:
        return [c.to_json() for c in smoother.certify_many(IMAGES, budget=BUDGET, seed=3)]

    alone = stream()
    with ThreadPoolExecutor(2) as pool:
        assert [work.result() for work in [pool.submit(stream) for _ in range(4)]] == [alone] * 4


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_one_thread_leaves_the_other_alone(smoother: Smoother, error: type[BaseException]) -> None:
    def bad() -> None:
        def images():  # type: ignore[no-untyped-def]
            yield IMAGES[0]
            raise error("broken")

        for _ in range(5):
            with pytest.raises(error, match="broken"):
                list(smoother.certify_many(images(), budget=BUDGET))

    alone = [certify(smoother, number) for number in range(8)]
    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(bad)
        assert list(pool.map(lambda n: certify(smoother, n % 8), range(24))) == alone * 3
        failing.result()


def test_certifying_beside_an_event_loop(smoother: Smoother) -> None:
    async def several() -> list[str]:
        return list(await asyncio.gather(*(asyncio.to_thread(certify, smoother, n) for n in range(8))))

    assert asyncio.run(several()) == [certify(smoother, n) for n in range(8)]
