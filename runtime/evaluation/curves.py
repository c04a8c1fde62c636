"""Certified accuracy from results: under the rule they were made with, or recomputed from the same votes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.statistics.rules.plan import single_rule

FRONTIER = tuple(f"interval@quantile:0.{q}" for q in range(1, 10))
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5)


def certified_radii(
    results: Sequence[Result], *, rule: str | None = None, route: str | None = None, alpha: float | None = None
) -> npt.NDArray[np.float64]:
    """The certified radius [N] of each result whose label is correct; -1 where it is wrong or abstained.

    `rule` recomputes every certificate from its votes (`None`: as it was made); `oracle` takes the best single sigma of
    each image, with the true label known: not a certificate that anyone could issue, but the limit of routing. Raises
    `InputError` where the votes that a rule needs were not drawn.
    """
    if rule == "oracle":
        sigmas = results[0].certificate.terms.sigmas
        single = [certified_radii(results, rule=single_rule(s), alpha=alpha) for s in sigmas]
        return np.asarray(np.stack(single).max(axis=0))
    if rule is not None and route is None:
        rule, route = split_route(rule)
    radii = []
    for result in results:
        certificate = result.certificate
        if rule is not None or route is not None or alpha is not None:
            try:
                certificate = certificate.recompute(alpha=alpha, rule=rule, route=route)
            except CertificateError as error:
                raise InputError(f"image {result.index} has {error}") from error
        radii.append(certificate.radius if certificate.label == result.true_label else -1.0)
    return np.array(radii)


def certified_accuracy(radii: npt.NDArray[np.float64], at: Sequence[float] = RADII) -> npt.NDArray[np.float64]:
    """Share of images [len(at)] that are correct with a certified radius of at least r (and above 0)."""
    return np.array([np.mean((radii >= r) & (radii > 0)) for r in at])


def average_certified_radius(radii: npt.NDArray[np.float64]) -> float:
    """Mean radius with wrong and abstained images as 0. A footnote: it rewards few large radii."""
    return float(np.mean(np.maximum(radii, 0.0)))


def expand_rules(rules: Sequence[str], sigmas: Sequence[float]) -> list[str]:
    """`single` stands for every `single:SIGMA`, `frontier` for the interval rule at nine quantiles of the route: the
    points between small and large radii that one bundle can serve without training."""
    groups = {"single": [single_rule(s) for s in sigmas], "frontier": list(FRONTIER)}
    return [name for rule in rules for name in groups.get(rule, [rule])]


def split_route(name: str) -> tuple[str, str | None]:
    """`interval@quantile:0.3` is the rule `interval` with that route; other names are rules with their default
    route."""
    rule, _, route = name.partition("@")
    return rule, route or None
