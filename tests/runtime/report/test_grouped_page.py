"""The page about certificates that may answer with a group, in a real browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toys
from browser import browser, require_browser

import dualsmooth as ds
from dualsmooth.runtime.evaluation.curves import COVERED_LEGEND
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.report import Curve, html_report

NAME = "<b>right</b>"


@pytest.mark.slow
def test_groups_have_a_name_an_outcome_and_a_curve(tmp_path: Path) -> None:
    executable = require_browser()
    bundle = toys.write_bundle(
        tmp_path / "b", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[2.0], classifier_cuts=[[0.0, 1.0], [0.0, 1.0]]
    )
    images = [toys.image(1.0, 0.5), toys.image(0.5, 0.5), toys.image(1.0, 0.1)]
    with ds.load(bundle, threads=1) as smoother:
        made = smoother.certify_many(
            images, groups={NAME: [1, 2]}, budget=ds.Fixed(1_000), seed=1, noise=ds.Noise("float")
        )
        results = [Result(i, truth, "toy", 0.1, c) for i, (truth, c) in enumerate(zip((2, 1, 0), made, strict=True))]
    assert [r.certificate.group for r in results] == [NAME, None, NAME]
    fine, covered = (
        Curve.of(results, name="fine", source="s"),
        Curve.of(results, name="covered", source="s", covered=True),
    )
    assert covered.legend == COVERED_LEGEND
    assert (np.round(fine.radii, 1)[[0, 2]] == -1).all()
    file = tmp_path / "r.html"
    file.write_text(html_report([fine, covered]))
    with browser(executable) as page:
        page.open(file)
        cells = "[...document.querySelectorAll('#images-table tbody tr')].map(r => r.innerText)"
        rows = page.run(cells)
        assert [("group" in row.split("\t"), NAME in row) for row in rows] == [
            (True, True),
            (False, False),
            (True, True),
        ]
        page.run("(f => { f.value = '1'; f.dispatchEvent(new Event('input', {bubbles: true})); })"
                 "(document.getElementById('f-run'))")  # fmt: skip
        outcomes = ["correct" if i < 2 else "wrong" for i in range(3)]
        assert [
            next(o for o in ("correct", "wrong", "group", "abstained") if o in row) for row in page.run(cells)
        ] == outcomes
        page.run("document.querySelector('#images-table tbody tr').click()")
        assert NAME in page.run("document.querySelector('#detail .verdict').innerText")
        assert page.run("[...document.querySelectorAll('svg *')].every(e => !/NaN|undefined/.test(e.outerHTML))")
        assert COVERED_LEGEND.meaning in page.run("document.getElementById('meanings').innerText")
