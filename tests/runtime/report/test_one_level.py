"""The page about one noise level without a router, and about pictures of another size, in a real browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toys
from browser import browser, require_browser

import dualsmooth as ds
from dualsmooth.runtime.bundle.preprocessing import Preprocessing
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.evaluation.evaluate import evaluate
from dualsmooth.runtime.report import html_report, load_curves

COUNT = 12


@pytest.mark.slow
def test_the_page_shows_one_level_and_the_networks_input(tmp_path: Path) -> None:
    executable = require_browser()
    how = Preprocessing(toys.SHAPE, 8)
    bundle = toys.write_bundle(tmp_path / "b", sigmas=(0.5,), classifier_cuts=[0.4], preprocessing=how)
    images = np.random.default_rng(3).integers(0, 256, (COUNT, 1, 20, 30), np.uint8)
    dataset = Dataset("toy", images, np.arange(COUNT) % 2, ("class 0", "class 1"))
    evaluate(ds.load(bundle, threads=1), dataset, tmp_path / "r.jsonl", indices=range(COUNT), budget=ds.Fixed(300))
    page_file = tmp_path / "report.html"
    page_file.write_text(html_report(load_curves([tmp_path / "r.jsonl"]), title="One level", dataset=dataset))
    with browser(executable) as page:
        page.open(page_file)
        assert page.errors == []
        assert page.run("[...document.querySelectorAll('svg *')].every(e => !/NaN|undefined/.test(e.outerHTML))")
        text = page.run("document.body.innerText")
        assert "single:0.5, no router" in text
        assert how.words in text
        assert "there is no route that could limit a radius" in text
        label = page.run("document.querySelector('#passes-chart svg').getAttribute('aria-label')")
        assert label == "classifier, σ = 0.5: 400 passes an image"
        assert "Every level was sampled in full" not in text
        page.click("#images-table tbody tr td:nth-child(2) button")
        page.wait("document.querySelectorAll('.noisy canvas').length === 6")
        assert page.run("[...document.querySelectorAll('.noisy canvas')].every(c => c.width / c.height === 2)")
        assert "∞ (one level)" in page.run("document.getElementById('detail').innerText")
        assert page.errors == []
