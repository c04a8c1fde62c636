from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.gaussian import Gaussian

Make = Callable[..., Batch]


def test_gaussian_is_cross_entropy_at_each_examples_level(make: Make, drawn: Callable[[int], torch.Tensor]) -> None:
    batch = make()
    expected = cross_entropy(batch.network(batch.images + drawn(1)), batch.labels)
    torch.testing.assert_close(Gaussian().loss(batch), expected)
