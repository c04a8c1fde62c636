"""Which radius counts, and what share of images it counts for."""

from __future__ import annotations

import numpy as np
import pytest

from dualsmooth.runtime.statistics.accuracy import average_certified_radius, certified_accuracy, correct_radius


@pytest.mark.parametrize(("label", "expected"), [(3, 0.5), (2, -1.0), (None, -1.0)])
def test_only_the_true_label_counts(label: int | None, expected: float) -> None:
    assert correct_radius(label, 0.5, 3) == expected


def test_shares_by_hand() -> None:
    """Wrong (-1) and uncertified (0) images count at no radius, not even at 0; the ends of a radius count."""
    radii = np.array([-1.0, 0.0, 0.25, 0.5])
    assert certified_accuracy(radii, [0, 0.25, 0.26, 0.5, 0.51]).tolist() == [0.5, 0.5, 0.25, 0.25, 0]
    assert average_certified_radius(radii) == 0.1875
