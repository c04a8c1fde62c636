from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dualsmooth.training.objectives.batch import Batch
from dualsmooth.training.objectives.consistency import Consistency, consistency

Make = Callable[..., Batch]


def test_consistency_is_the_published_loss_over_the_copies(make: Make, drawn: Callable[[int], torch.Tensor]) -> None:
    batch = make()
    logits = batch.network(batch.images.repeat(2, 1, 1, 1) + drawn(2))
    p = logits.softmax(1).view(2, 3, 2)
    mean = p.mean(0)
    kl = (mean * (mean / p).log()).sum(-1).mean()
    entropy = -(mean * mean.log()).sum(-1).mean()
    expected = cross_entropy(logits, batch.labels.repeat(2)) + 7 * kl + 0.3 * entropy
    torch.testing.assert_close(Consistency(weight=7, eta=0.3).loss(batch), expected)


def test_consistency_is_the_published_regulariser() -> None:
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    p = logits.softmax(-1).numpy()
    mean = p.mean(axis=0)
    kl = np.mean([(mean * np.log(mean / copy)).sum(axis=1).mean() for copy in p])
    entropy = -(mean * np.log(mean)).sum(axis=1).mean()
    assert consistency(logits, 3.0, 0.5).item() == pytest.approx(3 * kl + 0.5 * entropy)
    same = logits[:1].repeat(2, 1, 1)
    assert consistency(same, 1.0, 0.0).item() == pytest.approx(0.0, abs=1e-12)
