"""`dualsmooth studio` as it is started and ended: an address, a page, Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.cli import main
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.studio.html import page_html
from dualsmooth.runtime.studio.pictures import Pictures
from dualsmooth.runtime.studio.studio import Studio

HOSTILE = "</script><script>window.hacked=1</script>@SCRIPT@"


def test_it_prints_its_address_serves_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    toys.two_levels(tmp_path / "bundle")
    command = [sys.executable, "-W", "error", "-m", "dualsmooth", "studio", str(tmp_path / "bundle"), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", line)
        assert address, line
        with urllib.request.urlopen(address[0], timeout=60) as reply:
            assert "dualsmooth studio" in reply.read().decode()
        started.send_signal(signal.SIGINT)
        out, error = started.communicate(timeout=60)
    assert (started.returncode, out, error) == (0, "the studio is closed\n", "")


def test_what_it_cannot_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = str(toys.two_levels(tmp_path / "bundle"))
    for arguments, words in (
        ([str(tmp_path / "nowhere")], "nowhere"),
        ([bundle, "--port", "-1"], "expected 0"),
        ([bundle, "--dataset", "no-such"], "no-such"),
    ):
        assert main(["studio", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return dict(json.loads(found[1]))


def test_the_page_offers_what_ships_with_a_bundle_that_ships() -> None:
    with ds.load("fashion-mnist", threads=1) as smoother:
        data = data_of(page_html(Studio(smoother, Pictures.of(smoother, None))))
    shown = [picture["name"] for picture in data["pictures"]]
    assert {name: shown.count(name) for name in smoother.bundle.classes} == dict.fromkeys(smoother.bundle.classes, 2)
    assert [rule["name"] for rule in data["rules"]][:3] == ["interval", "paper", "multiscale"]
    assert [mode["name"] for mode in data["modes"]] == ["decide", "quick", "standard", "thorough"]


def test_a_bundle_of_ones_own_offers_none_unless_there_is_a_data_set(tmp_path: Path) -> None:
    with ds.load(toys.two_levels(tmp_path / "bundle"), threads=1) as smoother:
        assert data_of(page_html(Studio(smoother, Pictures.of(smoother, None))))["pictures"] == []
        images = np.arange(600).reshape(300, 1, 1, 2).astype(np.uint8)
        dataset = Dataset("toy", images, np.r_[np.zeros(299, np.int64), 1], smoother.bundle.classes)
        pictures = Pictures.of(smoother, dataset)
        assert pictures.images.shape == (200, 1, 1, 2)
        assert np.array_equal(pictures.images, images[:200])
        assert pictures.offered == list(range(20))


def test_without_a_router_the_rules_about_one_are_not_offered(tmp_path: Path) -> None:
    bundle = toys.write_bundle(tmp_path / "bundle", sigmas=(0.5,), classifier_cuts=[0.4])
    with ds.load(bundle, threads=1) as smoother:
        data = data_of(page_html(Studio(smoother, Pictures.of(smoother, None))))
    assert [rule["name"] for rule in data["rules"]] == ["multiscale", "confidence:0.5", "sure:0.3", "single:0.5"]
    assert data["rule"] in [rule["name"] for rule in data["rules"]]


def test_names_from_a_bundle_are_data(tmp_path: Path) -> None:
    bundle = toys.two_levels(tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    names = [HOSTILE, "other"]
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"classes": names}))
    with ds.load(bundle, threads=1) as smoother:
        page = page_html(Studio(smoother, Pictures.of(smoother, None)))
    assert data_of(page)["classes"] == names
    assert page.count("</script>") == 2
    assert "connect-src 'self'" in page
    assert not re.search(r"(?:src|href)=\"https?:", page)
