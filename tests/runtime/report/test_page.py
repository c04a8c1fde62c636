"""The page as a reader meets it, in a real headless browser: drawn, sorted, filtered, and silent on the network."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from browser import Page, browser, require_browser

import dualsmooth as ds
from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.evaluation.field_log import write_log
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.evaluation.writer import ResultsWriter
from dualsmooth.runtime.report import Curve, html_report, load_curves

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>@DATA@"
COUNT = 40


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Result], Dataset, Path]:
    folder = tmp_path_factory.mktemp("page")
    bundle = toys.write_bundle(
        folder / "bundle", sigmas=(0.25, 0.5), sigma_e=0.5, estimator_cuts=[0.5], classifier_cuts=[0.3, 0.4]
    )
    images = np.random.default_rng(3).integers(0, 256, (COUNT, 1, 1, 2), np.uint8)
    dataset = Dataset("toy", images, (images[:, 0, 0, 0] > 90).astype(np.int64), (HOSTILE, "class one"))
    certificates = ds.load(bundle, threads=1).certify_many(images, budget=ds.Fixed(500), seed=1, all_levels=True)
    results = [Result(i, int(dataset.labels[i]), "toy", 0.25, c) for i, c in enumerate(certificates)]
    out = folder / "results.jsonl"
    writer = ResultsWriter(out, {})
    for result in results:
        writer.append(result)
    writer.close()
    write_log(results, folder / "log.tsv")
    return results, dataset, folder


@pytest.fixture(scope="module")
def shown(setting) -> Iterator[Page]:
    executable = require_browser()
    results, dataset, folder = setting
    runs = [
        *load_curves([folder / "results.jsonl"], rules=["single", "oracle", "paper", "interval"]),
        *load_curves([folder / "log.tsv"]),
        Curve.of(results[:20], name=HOSTILE, source=HOSTILE),
    ]
    file = folder / "report.html"
    file.write_text(html_report(runs, title=HOSTILE, dataset=dataset))
    with browser(executable) as page:
        page.open(file)
        yield page


def column(page: Page, number: int) -> list[str]:
    cells = f"[...document.querySelectorAll('#images-table tbody td:nth-child({number})')]"
    return list(page.run(f"{cells}.map(c => c.textContent)"))


@pytest.fixture(scope="module")
def single(setting, shown: Page, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about one results file, and nothing else."""
    file = tmp_path_factory.mktemp("single") / "single.html"
    file.write_text(html_report(load_curves([setting[2] / "results.jsonl"]), dataset=setting[1]))
    return file


@pytest.mark.slow
class TestInABrowser:
    def test_charts_are_drawn(self, shown: Page) -> None:
        for name in ("curve", "compare", "levels", "scatter", "pa", "passes"):
            marks = f"document.querySelectorAll('#{name}-chart svg :is(path, rect, circle)').length"
            assert shown.run(marks) > 2, name
        assert shown.run("document.querySelectorAll('#curve-chart svg path[stroke-linejoin]').length") == 7
        assert shown.run("document.querySelectorAll('#scatter-chart circle.dot').length") == COUNT
        assert shown.run("[...document.querySelectorAll('svg *')].every(e => !/NaN|undefined/.test(e.outerHTML))")

    def test_table_says_what_the_results_imply(self, shown: Page, setting) -> None:
        radii = np.array([r.correct_radius for r in setting[0]])
        rows = shown.run("[...document.querySelectorAll('#radius-table tbody tr')].map(r => r.innerText)")
        row = next(r for r in rows if r.startswith("interval"))
        assert re.findall(r"\d+\.\d", row)[0] == f"{100 * np.mean(radii > 0):.1f}"
        assert re.findall(r"\d+\.\d", row)[1] == f"{100 * np.mean(radii >= 0.25):.1f}"

    def test_sorting(self, shown: Page, setting) -> None:
        radii = sorted(r.certificate.radius for r in setting[0])
        header = "#images-table th:nth-child(4) button"
        shown.click(header)
        first = [float(v) for v in column(shown, 4)]
        assert first == sorted(first)
        assert first[0] == pytest.approx(radii[0], abs=1e-3)
        shown.press("Enter")  # the focus stays on the header
        last = [float(v) for v in column(shown, 4)]
        assert last == sorted(last, reverse=True)
        assert last[0] == pytest.approx(radii[-1], abs=1e-3)
        assert shown.run("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "descending"

    def test_filtering(self, shown: Page, setting) -> None:
        wrong = [r for r in setting[0] if r.certificate.label not in (None, r.true_label)]
        shown.run("(f => { f.value = 'wrong'; f.dispatchEvent(new Event('input', {bubbles: true})); })"
                  "(document.getElementById('f-outcome'))")  # fmt: skip
        assert sorted(map(int, column(shown, 2))) == [r.index for r in wrong]
        assert shown.run("document.getElementById('images-count').textContent").startswith(f"{len(wrong)} of {COUNT}")
        shown.click("#filters button[type=reset]")
        assert len(column(shown, 2)) == 25
        shown.click("#pager button:last-child")
        assert len(column(shown, 2)) == COUNT - 25

    def test_curves_can_be_read_and_hidden(self, shown: Page) -> None:
        shown.hover("#curve-chart [role=slider]")
        assert "interval:" in shown.run("document.getElementById('tip').textContent")
        shown.run("document.querySelector('#curve-chart [role=slider]').focus()")
        shown.press("ArrowRight")
        assert float(shown.run("document.querySelector('[role=slider]').getAttribute('aria-valuenow')")) > 0
        shown.click("#legend button")
        assert shown.run("document.querySelectorAll('#curve-chart svg path[stroke-linejoin]').length") == 6
        shown.click("#legend button")

    def test_an_image_opens_with_its_certificate_and_noisy_copies(self, shown: Page) -> None:
        shown.click("#images-table tbody tr td:nth-child(2) button")
        shown.wait("document.querySelectorAll('.noisy canvas').length === 6")
        text = shown.run("document.getElementById('detail').innerText")
        assert "class radius" in text
        assert "Votes" in text
        differ = "new Set([...document.querySelectorAll('.noisy canvas')].map(c => c.toDataURL())).size"
        assert shown.run(differ) > 1
        title = shown.run("document.getElementById('detail-title').textContent")
        shown.press("ArrowRight")
        assert shown.run("document.getElementById('detail-title').textContent") != title
        shown.press("Escape")
        assert not shown.run("document.getElementById('detail').open")

    def test_exports(self, shown: Page, setting) -> None:
        """What the buttons save, caught instead of written to a folder."""
        shown.run("window.saved = {}; save = (name, content) => { saved[name] = content; }; 0")
        for selector in ("#table-tools button", "#table-tools button:last-child", "#curve-tools button",
                         "#curve-tools button:last-child", "#images-tools button"):  # fmt: skip
            shown.click(selector)
        shown.wait("Object.keys(saved).length === 5")
        rows = list(csv.DictReader(io.StringIO(shown.run("saved['certified-accuracy.csv']"))))
        mine = next(r for r in rows if r["curve"] == "interval" and r["radius"] == "0.25")
        assert int(mine["certified"]) == sum(r.correct_radius >= 0.25 for r in setting[0])
        assert "\\toprule" in shown.run("saved['certified-accuracy.tex']")
        assert shown.run("saved['dualsmooth-curve.svg']").startswith("<svg")
        assert "var(" not in shown.run("saved['dualsmooth-curve.svg'].replace(/style=\"[^\"]*\"/g, '')")
        assert shown.run("saved['dualsmooth-curve.png'].size") > 1000
        for words in ("interval (40 images; passes: N = 500 a stage and level; alpha: 0.001", "Bands: 95\u00a0%"):
            assert words in shown.run("saved['dualsmooth-curve.svg']")
            assert words not in shown.run("document.getElementById('curve-chart').textContent")
        assert len(list(csv.reader(io.StringIO(shown.run("saved['images.csv']"))))) == COUNT + 1

    def test_hostile_text_is_only_text(self, shown: Page) -> None:
        assert shown.run("window.hacked") is None
        assert shown.run("document.getElementById('title').textContent") == HOSTILE
        assert shown.run("document.querySelectorAll('script').length") == 2

    def test_no_request_leaves_the_page_and_no_error(self, shown: Page) -> None:
        outside = [r for r in shown.requests if not r.startswith(("data:", "blob:"))]
        assert len(outside) == 1
        assert outside[0].startswith("file://")
        assert shown.errors == []

    def test_a_page_about_one_run_shows_only_what_there_is(self, single: Path, shown: Page) -> None:
        shown.open(single)
        text = shown.run("document.body.innerText")
        assert not re.search(r"\b(null|undefined|NaN)\b", text)

    def test_a_stranger_is_told_what_the_figures_rest_on(self, single: Path, shown: Page, setting) -> None:
        shown.open(single)
        note = shown.run("document.getElementById('summary-note').innerText")
        assert "40 images; passes: N = 500 a stage and level; alpha: 0.001 a certificate" in note
        assert shown.run("document.getElementById('meanings').innerText").startswith("interval\n")
        assert "Every level was sampled in full" in shown.run("document.getElementById('passes-note').innerText")
        shown.open(setting[2] / "report.html")
        named = shown.run("[...document.querySelectorAll('#meanings dt')].map(d => d.textContent)")
        assert named == ["interval", "paper", "single:σ", "oracle", "log"]
        assert "different images" in shown.run("document.getElementById('table-note').innerText")
        assert shown.run("document.querySelectorAll('#radius-table .best').length") == 0

    def test_its_medians_are_of_the_images_that_are_correct_and_certified(
        self, setting, tmp_path: Path, shown: Page
    ) -> None:
        """Radii of wrong labels, and zeros of abstentions, would be of another population than the share beside it."""
        results = [replace(r, true_label=(r.true_label + (r.certificate.radius < 0.3)) % 2) for r in setting[0]]
        radii = [r.correct_radius for r in results if r.correct_radius > 0]
        assert 0 < len(radii) < COUNT
        page = tmp_path / "page.html"
        page.write_text(html_report([Curve.of(results, name="interval", source="toy")]))
        shown.open(page)
        line = shown.run("document.getElementById('images-count').textContent")
        share, median = re.search(r"; ([\d.]+).%.* of them .* radius of ([\d.]+)", line).groups()
        assert float(share) == pytest.approx(100 * len(radii) / COUNT, abs=0.05)
        assert float(median) == pytest.approx(np.median(radii), abs=1e-3)
        tiles = shown.run("[...document.querySelectorAll('#summary .tile')].map(t => t.innerText)")
        assert any(tile.startswith(median) for tile in tiles)

    def test_what_all_runs_share_is_said_once(self, setting, tmp_path: Path, shown: Page) -> None:
        page = tmp_path / "rules.html"
        paper, interval = load_curves([setting[2] / "results.jsonl"], rules=["paper", "interval"])
        mixed = Curve.of(paper.results[::-1], name="paper", source=paper.source)  # as a cluster finishes them
        page.write_text(html_report([mixed, interval]))
        shown.open(page)
        terms = shown.run("[...document.querySelectorAll('#facts dt')].map(d => d.textContent)")
        assert terms.count("alpha") == terms.count("file") == 1
        assert terms.count("rule") == 2
        assert "Bold: the best" in shown.run("document.getElementById('table-note').innerText")
        assert shown.run("document.querySelectorAll('#radius-table .best').length") > 0
        assert shown.run("document.querySelectorAll('#images-table thead th').length") == len(
            shown.run("[...document.querySelectorAll('#images-table thead button')].map(b => b.textContent)")
        )  # no column for pictures that are not there

    @pytest.mark.parametrize(("width", "scale"), [(390, 0.95), (320, 0.8)])
    def test_a_narrow_window(self, single: Path, shown: Page, width: int, scale: float) -> None:
        """Nothing is cut off, and text in charts keeps its size."""
        shown.open(single, width=width, height=844)
        assert shown.run("document.documentElement.scrollWidth") == width
        for name in ("curve", "levels", "scatter", "pa", "passes"):
            svg = f"document.querySelector('#{name}-chart svg')"
            assert shown.run(f"{svg}.getBoundingClientRect().width / {svg}.viewBox.baseVal.width") > scale, name
            inside = "(b => t => (r => r.left > b.left - 2 && r.right < b.right + 2)(t.getBoundingClientRect()))"
            cut = f"[...{svg}.querySelectorAll('text')].filter(t => !{inside}({svg}.getBoundingClientRect())(t))"
            assert shown.run(f"{cut}.map(t => t.textContent)") == [], name
        shown.click("#images-table tbody tr td:nth-child(2) button")
        shown.wait("document.querySelectorAll('.noisy canvas').length === 6")
        assert shown.run("(d => d.scrollWidth - d.clientWidth)(document.getElementById('detail'))") == 0
        shown.press("Escape")

    def test_injected_code_would_not_run(self, setting, tmp_path: Path, shown: Page) -> None:
        """The second line of defence: even markup that got into the page is not run."""
        page = (setting[2] / "report.html").read_text()
        bad = tmp_path / "bad.html"
        bad.write_text(page.replace("<noscript>", "<script>window.hacked=1</script><noscript>"))
        shown.open(bad)
        assert shown.run("window.hacked") is None
        assert any("Content Security Policy" in e for e in shown.errors)


def test_markup_cannot_end_the_data(setting) -> None:
    results, dataset, _ = setting
    page = html_report([Curve.of(results, name=HOSTILE, source="s")], title=HOSTILE, dataset=dataset)
    assert page.count("</script>") == 2
    assert "hacked=1>" not in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["title"] == HOSTILE
    assert data["runs"][0]["index"] == list(range(COUNT))


def test_the_wrong_images_are_refused(setting) -> None:
    results, dataset, _ = setting
    other = Dataset("other", 255 - dataset.images, dataset.labels, dataset.classes)
    with pytest.raises(ds.InputError, match="is not the one that its certificate is about"):
        html_report([Curve.of(results, name="r", source="s")], dataset=other)
