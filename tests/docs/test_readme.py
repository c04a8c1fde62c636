"""The README's figures."""

from pathlib import Path

import pytest
from compare_rules import CHOSEN, STUDIES, curves_of

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED
from dualsmooth.runtime.evaluation.results import load_results
from dualsmooth.runtime.report import markdown_table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_tables_follow_from_the_committed_votes(name: str) -> None:
    """Every figure of the README's tables, recomputed from the counts; the votes are of the bundles that ship."""
    study = STUDIES[name]
    results = load_results(study.votes)
    assert {r.certificate.artefact.manifest_sha256 for r in results} == {ds.read_bundle(name).manifest_sha256}
    assert [r.index for r in results] == list(study.images)
    readme = (ROOT / "README.md").read_text().splitlines()
    curves = curves_of(results, ("single", "multiscale", "paper", "interval", CHOSEN))
    for row in markdown_table(curves, study.radii).splitlines()[2:]:
        assert row in readme
