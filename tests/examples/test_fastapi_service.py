"""examples/fastapi_service: its page of curl, typed on a live uvicorn; refusals, hang-ups, load and the end of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES

for needed in ("fastapi", "uvicorn", "prometheus_client", "PIL"):
    pytest.importorskip(needed, reason="`make examples` has it")
httpx = pytest.importorskip("httpx", reason="`make examples` has it")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "fastapi_service"
ADDRESS = "http://127.0.0.1:8080"
BLOCKS = re.findall(r"^```sh\n(.*?)^```", (FOLDER / "README.md").read_text(), re.M | re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
START = next(command for command in COMMANDS if command.startswith("uvicorn "))


TIGHT = """
import app, uvicorn, dualsmooth as ds
app.LIMITS = ds.Limits(max_open=1, max_waiting=1)
uvicorn.run(app.app, port={})
"""


def started(port: int, *, tight: bool = False) -> subprocess.Popen[bytes]:
    """The server that the page starts, on another port; `tight`: with limits that are soon reached."""
    program = ["-m", *shlex.split(START.replace("8080", str(port)))]
    if tight:
        program = ["-c", TIGHT.format(port)]
    env = os.environ | {"DUALSMOOTH_THREADS": "1", "PYTHONPATH": f"{FOLDER}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([sys.executable, *program], cwd=ROOT, env=env)
    wait_for(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}"))
    return process


def wait_for(what: Callable[[], Any], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def server(*, tight: bool = False) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    process = started(port, tight=tight)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as (address, _):
        yield address


@pytest.fixture(scope="module")
def load_test() -> Any:
    sys.path.insert(0, str(FOLDER))
    try:
        import load_test

        yield load_test
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    with np.load(SHIPPED_IMAGES) as arrays:
        return arrays["x"][2][None]  # a pair of trousers


def counted(url: str, name: str) -> float:
    (found,) = re.findall(rf"^dualsmooth_{name} (\S+)$", httpx.get(f"{url}/metrics").text, re.M)
    return float(found)


def test_the_page_of_curl(url: str, tmp_path: Path) -> None:
    """Every command of the README but those that install and start, in order, in a reader's shell."""
    (tmp_path / "runtime").symlink_to(ROOT / "runtime")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "README.md").symlink_to(ROOT / "README.md")
    (tmp_path / "bin").mkdir()
    for program, how in {"python": "", "dualsmooth": "-m dualsmooth"}.items():
        (tmp_path / "bin" / program).write_text(f'#!/bin/sh\nexec "{sys.executable}" {how} "$@"\n')
        (tmp_path / "bin" / program).chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    said: dict[str, str] = {}
    for command in COMMANDS:
        if command.startswith(("pip ", "uvicorn ")):
            continue
        small = command.replace(ADDRESS, url).replace("--seconds 60", "--seconds 3")
        done = subprocess.run(["bash", "-c", small], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said[command] = done.stdout
        if stated := re.search(r"# (\d+):", command):
            assert done.stdout.endswith(stated[1]), command
    shown = list(said.values())
    assert json.loads(shown[1])["label"] == 1
    assert ds.Certificate.from_json(shown[2]).terms.budget == ds.Fixed(10_000)
    assert ds.Certificate.from_json(shown[3]).terms.alpha == 0.01
    assert json.loads(shown[4])["radius"] >= 0.5
    assert [ds.Certificate.from_json(text).terms.budget for text in shown[5:7]] == [
        ds.Adaptive(1_000, 0.05),
        ds.AtRadius(0.5),
    ]
    assert json.loads(shown[7])["label"] == 1
    assert ds.Certificate.from_json(shown[8]).terms.groups.to_dict() == {"footwear": [5, 7, 9]}
    assert sum("gone" in text for text in shown) == 1
    assert sum("0 wrong, 0 errors" in text for text in shown) == 1
    assert json.loads(said[f"curl -s {ADDRESS}/bundle"])["classes"][1] == "Trouser"
    assert json.loads(said[f"curl -s {ADDRESS}/health"]) == {"live": True, "ready": True}


def test_codes_and_lines(url: str, image: np.ndarray, load_test: Any) -> None:
    picture = load_test.png(image)
    cases = [
        ({"content": picture, "params": {"rule": "best"}}, 400, "rule 'best'"),
        ({"content": picture, "params": {"budget": "fixed"}}, 400, "budget 'fixed'"),
        ({"content": picture, "params": {"alpha": 99.9}}, 400, "a confidence of 99.9 % is alpha 0.001"),
        ({"content": picture, "params": {"mode": "fast"}}, 400, "mode 'fast' is unknown"),
        ({"content": picture, "params": {"mode": "quick", "budget": "fixed:100"}}, 400, "pass one of them"),
        ({"content": picture, "params": {"mode": "decide"}}, 400, "without r"),
        ({"content": picture, "params": {"r": 0.5}}, 400, "no mode decides"),
        ({"content": picture, "params": {"at_most": 0}}, 400, "at_most is 0"),
        ({"content": picture, "params": {"groups": "maybe"}}, 400, "groups is 'maybe'"),
        ({"content": picture, "params": {"groups": '{"shoes": [1]}'}}, 400, "group 'shoes' is [1]"),
        ({"content": picture, "params": {"groups": '{"shoes": ["Boot", 1]}'}}, 400, "'Boot' is no class"),
        ({"content": b""}, 400, "cannot read upload"),
        ({"content": picture[:60]}, 400, "cannot read upload"),
        ({"content": load_test.png(image[:, 1:])}, 400, "28 pixels wide and 27 high; expected 28 wide and 28 high"),
        ({"content": bytes(9 << 20)}, 413, "this server's limit"),
    ]
    for asked, status, line in cases:
        answer = httpx.post(f"{url}/certify", **asked)
        assert answer.status_code == status
        assert answer.json()["code"] == "bad-request"
        assert line in answer.json()["error"]
        assert "object at" not in answer.text
    assert httpx.get(f"{url}/certify").status_code == 405


def test_who_hangs_up_stops_the_sampling(url: str, image: np.ndarray, load_test: Any) -> None:
    before = counted(url, "failures_total")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/certify?budget=fixed:120000", content=load_test.png(image), timeout=0.5)
    wait_for(lambda: counted(url, "failures_total") == before + 1)
    wait_for(lambda: counted(url, "open") == 0)


def test_a_full_queue_is_503_and_asks_to_come_again(image: np.ndarray, load_test: Any) -> None:
    picture = load_test.png(image)
    with server(tight=True) as (url, _), ThreadPoolExecutor(2) as threads:
        asked = []
        for place in ("open", "waiting"):
            asked.append(threads.submit(httpx.post, f"{url}/certify?budget=fixed:50000", content=picture, timeout=120))
            wait_for(lambda place=place: counted(url, place) == 1)
        refused = httpx.post(f"{url}/predict", content=picture)
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "full", "1")
        assert httpx.get(f"{url}/health").json() == {"live": True, "ready": False}
        one, two = (ds.Certificate.from_json(future.result(120).text) for future in asked)
        assert one.label == two.label == 1
        assert one.seed.entropy != two.seed.entropy


def test_the_load_test_sees_what_is_wrong(url: str, image: np.ndarray, load_test: Any) -> None:
    other = np.ascontiguousarray(image[:, ::-1])
    came = load_test.load(url, [image], clients=2, seconds=0.5, budget="fixed:200")
    assert came.answers
    assert came.errors == []
    with ds.load(SHIPPED_BUNDLE, threads=1) as smoother:
        (first, *_) = came.answers
        assert load_test.wrong([first], [image], smoother) == []
        assert "not the one that the certificate is about" in load_test.wrong([first], [other], smoother)[0]
        assert "noise of another answer" in load_test.wrong([first, first], [image], smoother)[0]
    refused = load_test.load(url, [image], clients=1, seconds=0.2, budget="fixed:9000000")
    assert refused.errors
    assert not refused.answers


def test_at_the_end_what_was_accepted_is_answered(image: np.ndarray, load_test: Any) -> None:
    with server() as (url, process), ThreadPoolExecutor(1) as threads:
        asked = threads.submit(
            httpx.post, f"{url}/certify?budget=fixed:20000", content=load_test.png(image), timeout=120
        )
        wait_for(lambda: counted(url, "open") == 1)
        process.send_signal(signal.SIGTERM)
        assert ds.Certificate.from_json(asked.result(120).text).label == 1
        assert process.wait(60) in (0, -signal.SIGTERM)  # uvicorn ends by the signal that it got


def test_the_container_has_what_the_page_starts() -> None:
    text = (FOLDER / "Containerfile").read_text()
    for source in re.findall(r"^COPY (.*) \S+$", text, re.M):
        assert all((ROOT / name).exists() for name in source.split())
    run = json.loads(re.findall(r"^CMD (\[.*\])$", text, re.M)[0])
    assert [word for word in run if word not in ("--host", "0.0.0.0")] == shlex.split(START)
