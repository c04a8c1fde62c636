"""Certificates as cards in a real browser: the bars of the report, readable everywhere; nothing runs or is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from browser import Page, browser, require_browser

import dualsmooth as ds
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.report import Curve, html_report

HOSTILE = '</div></style><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ds.Certificate:
    folder = toys.write_bundle(
        tmp_path_factory.mktemp("cards") / "toy",
        sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.6], classifier_cuts=[0.2, 0.25],
    )  # fmt: skip
    with ds.load(folder, threads=1) as smoother:
        return smoother.certify(np.array([[[170, 60]]], np.uint8), budget=ds.Fixed(500, n0=50), seed=1)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    executable = require_browser()
    with browser(executable) as page:
        yield page


BARS = """[...document.querySelectorAll('PLACE svg rect[height="15"]')].map(r =>
    [r.getAttribute('fill'), r.width.baseVal.value / (r.ownerSVGElement.viewBox.baseVal.width - 94)])"""
TEXTS = "[...document.querySelectorAll('PLACE svg text')].map(t => t.textContent)"


@pytest.mark.slow
def test_a_browser_draws_the_bars_of_the_report(page: Page, certificate: ds.Certificate, tmp_path: Path) -> None:
    hostile = replace(certificate, classes=(HOSTILE, HOSTILE))
    alone, report = tmp_path / "alone.html", tmp_path / "report.html"
    alone.write_text(f"<html data-ready=yes><body>{hostile.show().html}</body></html>", "utf-8")
    report.write_text(html_report([Curve.of([Result(0, 1, "toy", 0.1, certificate)], name="a", source="a")]), "utf-8")
    page.open(report)
    page.run("openDetail(DATA.runs[0], 0)")
    theirs = [page.run(what.replace("PLACE", "#detail .chart")) for what in (BARS, TEXTS)]
    page.open(alone)
    assert page.run("window.hacked") is None
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    ours = [page.run(what.replace("PLACE", ".dualsmooth")) for what in (BARS, TEXTS)]
    assert len(ours[0]) == 4
    assert [colour for colour, _ in ours[0]] == [colour for colour, _ in theirs[0]]
    for (_, mine), (_, other) in zip(ours[0], theirs[0], strict=True):
        assert mine == pytest.approx(other, abs=0.005)
    assert sorted(ours[1]) == sorted(theirs[1])


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1000])
def test_it_can_be_read_on_any_screen(
    page: Page, certificate: ds.Certificate, tmp_path: Path, width: int, dark: bool
) -> None:
    file = tmp_path / "alone.html"
    file.write_text(
        "<html data-ready=yes><meta name=viewport content='width=device-width'>"
        f"<body style='background: #777'>{certificate.show().html}</body></html>",
        "utf-8",
    )
    page.open(file, width=width, dark=dark)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    ground, ink = page.run(
        "[getComputedStyle(document.querySelector('.dualsmooth')).backgroundColor,"
        " getComputedStyle(document.querySelector('.dualsmooth p')).color]"
    )
    light = [sum(int(part) for part in colour[4:-1].split(",")) for colour in (ground, ink)]
    assert (light[0] < light[1]) is dark
    assert abs(light[0] - light[1]) > 450
    assert page.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"  # the notebook's own is left alone
