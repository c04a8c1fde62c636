"""Certified accuracy counts what the definition says, and rules recompute from the same votes."""

from pathlib import Path

import numpy as np
import pytest
import toys

import dualsmooth as ds
from dualsmooth.runtime.evaluation.curves import certified_radii, expand_rules
from dualsmooth.runtime.evaluation.forecast import plan
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.statistics.accuracy import certified_accuracy

LEVELS = (0.25, 0.5)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    bundle = toys.write_bundle(
        Path(tmp_path_factory.mktemp("c")) / "b",
        sigmas=LEVELS,
        sigma_e=0.5,
        estimator_cuts=[0.5],
        classifier_cuts=[0.3, 0.4],
    )
    smoother = ds.load(bundle)
    images = [toys.image(t, u) for t in (0.1, 0.35, 0.9) for u in (0.1, 0.48, 0.9)]
    certificates = smoother.certify_many(images, budget=ds.Fixed(1_000), seed=1, all_levels=True)
    return [Result(i, int(images[i][0, 0, 0] > 0.35), "toy", 0.0, c) for i, c in enumerate(certificates)]


def test_certified_accuracy_counts_correct_and_far_enough() -> None:
    radii = np.array([-1.0, 0.0, 0.25, 0.5])
    assert certified_accuracy(radii, [0.0, 0.25, 0.3, 0.6]).tolist() == [0.5, 0.5, 0.25, 0.0]


def test_wrong_and_abstained_images_never_count(results) -> None:
    wrong = [Result(r.index, 1 - r.true_label, r.dataset, 0.0, r.certificate) for r in results]
    both = np.stack([certified_radii(results), certified_radii(wrong)])
    assert (both.min(0) == -1).all()


def test_oracle_is_the_best_single_sigma_of_each_image(results) -> None:
    single = [certified_radii(results, rule=rule) for rule in expand_rules(["single"], LEVELS)]
    assert np.array_equal(certified_radii(results, rule="oracle"), np.max(single, axis=0))


def test_votes_that_were_not_drawn_are_an_error(tmp_path, results) -> None:
    smoother_votes = results[0].certificate.tally
    partial = {k: v for k, v in smoother_votes.looks.items() if not (k.stage == "classifier" and k.level == 1)}
    certificate = results[0].certificate
    lean = type(smoother_votes)(2, 2, partial)
    broken = ds.Certificate(
        certificate.outcome, certificate.terms, lean, certificate.seed, certificate.artefact, certificate.version
    )
    with pytest.raises(ds.InputError, match="evaluate with --all-levels"):
        certified_radii([Result(0, 0, "toy", 0.0, broken)], rule="single:0.5")


def test_a_forecast_at_the_pilots_own_size_is_the_pilot(results) -> None:
    forecast = plan(results, [1_000])[0]
    assert np.array_equal(forecast.radii, certified_radii(results))


def test_forecasts_come_near_a_longer_run(results) -> None:
    """Against the exact expectation: half-space probabilities are known, so is the radius at n passes."""
    longer = plan(results, [100_000])[0].radii
    assert (longer[certified_radii(results) > 0] > 0).all()
    truth = np.array([abs(t - 0.3) for t in (0.1, 0.9)])  # images 0 and 6: level 0.25, cut 0.3
    assert np.all(longer[[0, 6]] <= np.minimum(truth, 1.1) * 1.15)
