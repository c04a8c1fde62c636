"""Hard images discarded, easy ones weighted and attacked: the recipe of Sun, Mao, Müller, Vechev (ICML 2025, section 5,
arXiv 2410.06895, "Average Certified Radius is a Poor Metric …"), here to give capacity to what can be certified."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.bounds import lower_bound, normal_quantile
from dualsmooth.training.checks import need, need_from, need_share
from dualsmooth.training.objectives.attacks import direction, noise_gradient
from dualsmooth.training.objectives.batch import Batch, column
from dualsmooth.training.objectives.objective import SECTION, WEIGHTS, Look, Objective, first_epoch

_KEPT = "kept"
_LEAST_SHARE, _DOUBT = 0.75, 0.1


@dataclass(frozen=True)
class Reweighted(Objective):
    """Gaussian augmentation for the share `after` of the epochs. Then images that fewer than `threshold` of `judging`
    passes classify right are dropped; the others are drawn in proportion to Phi^-1(p), for a lower bound p on the share
    of `votes` passes, counted anew after each further share `every` of the epochs (10 % error, shares raised to 3/4);
    and each noise is moved against the classifier, see `against`. Levels up to `above` are left to Gaussian
    augmentation: at the smallest, accuracy is worth more than radii that the next level serves better.

    `step` is a length in units of each image's own noise level. The authors' settings in CIFAR-10, for 150 epochs: four
    copies, 100 passes to judge, new weights after every .07 of the epochs; threshold .5, .4, .4, steps 3, 6, 4, step 1,
    .5, .5 and after .4, .47, .4 at sigma = .25, .5, 1. The defaults are for trainings of tens of epochs.
    """

    kind: str = "reweighted"
    after: float = 0.4
    threshold: float = 0.4
    judging: int = 32
    every: float = 0.2
    votes: int = 16
    steps: int = 4
    step: float = 0.5
    copies: int = 1

    def check(self, section: str = SECTION) -> None:
        need_share(section, self, "after", "threshold", "every")
        need_from(section, self, 1, "judging", "votes", "copies")
        need_from(section, self, 0, "steps")
        need(self.step > 0, f"{section}.step is {self.step}", "a positive length, in units of the noise level")

    def review(
        self, epoch: int, epochs: int, known: dict[str, torch.Tensor], look: Look
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        since = epoch - first_epoch(self.after, epochs)
        if since < 0 or since % max(1, round(self.every * epochs)):
            return known
        share = look.hits(self.votes if known else self.judging)
        kept = known[_KEPT] if known else share >= self.threshold
        if not kept.any():
            raise InputError(
                f"no image is classified right in {self.threshold:.0%} of {self.judging} passes after {epoch} epochs; "
                f"expected some to go on with; lower {SECTION}.threshold, or raise {SECTION}.after or classifier.epochs"
                " (of classifier.lowest or .highest, where the objective is theirs)"
            )
        return {_KEPT: kept, WEIGHTS: kept * self.weights(share)}

    def weights(self, share: torch.Tensor) -> torch.Tensor:
        """How often images are drawn, in proportion, for their shares of hits in `votes` passes."""
        hits = (share.double().clamp_min(_LEAST_SHARE) * self.votes + 1e-9).floor().cpu().numpy()
        return torch.from_numpy(normal_quantile(lower_bound(hits, self.votes, _DOUBT))).clamp_min(0).to(share)

    def loss(self, batch: Batch) -> torch.Tensor:
        noise = batch.noise(self.copies)
        if batch.epoch >= first_epoch(self.after, batch.epochs):
            length = self.step * batch.sigma
            with batch.frozen() as frozen:
                noise = against(frozen, noise, length.repeat(self.copies), self.steps)
        logits = batch.logits(batch.images.repeat(self.copies, 1, 1, 1) + noise)
        return cross_entropy(logits.flatten(0, 1), batch.labels.repeat(self.copies))


def against(batch: Batch, noise: torch.Tensor, length: torch.Tensor, steps: int) -> torch.Tensor:
    """Noise [copies*B,C,H,W] moved up the cross-entropy by steps of `length` [copies*B] and set back to the norm it
    had each time, so that it stays where Gaussian noise lies; until the network errs, at most `steps` times."""
    labels = batch.labels.repeat(len(noise) // len(batch.clean))
    norm, right = noise.flatten(1).norm(dim=1), torch.ones_like(labels, dtype=torch.bool)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits.flatten(0, 1), labels, reduction="none")

    for _ in range(steps):
        gradient, logits = noise_gradient(batch, noise, loss)
        right = right & (logits.flatten(0, 1).argmax(1) == labels)
        moved = noise + column(length) * direction(gradient)
        moved = moved * column(norm / moved.flatten(1).norm(dim=1).clamp_min(1e-12))
        noise = torch.where(column(right), moved, noise)
    return noise
