"""The README's figures."""

from pathlib import Path

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.evaluation.curves import certified_radii
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.report import markdown_table

ROOT = Path(__file__).parents[2]


def test_table_follows_from_the_committed_votes() -> None:
    """Every figure of the README's table, recomputed from the counts; the votes are of the bundle that ships."""
    results = load_results(ROOT / "docs" / "results" / "fashion-mnist-all-levels.jsonl")
    shipped = ds.read_bundle(SHIPPED_BUNDLE).manifest_sha256
    assert {r.certificate.artefact.manifest_sha256 for r in results} == {shipped}
    assert [r.index for r in results] == list(range(0, 8000, 16))
    readme = (ROOT / "README.md").read_text().splitlines()
    for rule in ("single:0.25", "single:0.5", "single:1", "oracle", "multiscale", "paper", "interval"):
        row = markdown_table({rule: certified_radii(results, rule=rule)}).splitlines()[-1]
        assert row in readme
