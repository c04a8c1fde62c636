"""Certified radii from results: under the rule they were made with, or recomputed from the same votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.statistics.groups import Groups
from dualsmooth.runtime.statistics.rules import RULES
from dualsmooth.runtime.statistics.rules.interval import Interval
from dualsmooth.runtime.statistics.rules.rule import Legend
from dualsmooth.runtime.statistics.rules.single import Single

ORACLE, FRONTIER = "oracle", "frontier"
"""Not rules: a curve that no one can certify, and a family of curves of one rule."""
ORACLE_LEGEND = Legend(
    ORACLE,
    "the best single noise level of each image, picked with the true label at hand: the limit of routing, no "
    "certificate",
    colour=7,
    dashed=True,
)
COVERED_LEGEND = Legend(
    "label or group",
    "the label, or the group of classes that answers where the label is in doubt, is right and certified",
    colour=5,
)
_QUANTILES = tuple(f"{Interval.kind}@quantile:0.{q}" for q in range(1, 10))


def certified_radii(
    results: Sequence[Result], *, rule: str | None = None, route: str | None = None, alpha: float | None = None
) -> npt.NDArray[np.float64]:
    """The certified radius [N] of each result whose label is correct; -1 where it is wrong or abstained.

    `rule` recomputes every certificate from its votes (`None`: as it was made); `oracle` takes the best single sigma of
    each image, with the true label known: not a certificate that anyone could issue, but the limit of routing. Raises
    `InputError` where the votes that a rule needs were not drawn.
    """
    if rule == ORACLE:
        sigmas = results[0].certificate.terms.sigmas
        single = [certified_radii(results, rule=name, alpha=alpha) for name in Single.all_named(sigmas)]
        return np.asarray(np.stack(single).max(axis=0))
    if rule is not None and route is None:
        rule, route = split_route(rule)
    return np.array([r.correct_radius for r in recomputed(results, rule=rule, route=route, alpha=alpha)])


def recomputed(
    results: Sequence[Result],
    *,
    rule: str | None = None,
    route: str | None = None,
    alpha: float | None = None,
    groups: Groups | bool = True,
    at_most: int | None = None,
) -> Sequence[Result]:
    """The results that the same votes prove under another rule, route or alpha, other groups (True: their own, False:
    none), or for sets of `at_most` classes. Raises `InputError` where votes that are needed were not drawn."""
    if rule is None and route is None and alpha is None and groups is True and at_most is None:
        return results
    made = []
    for result in results:
        try:
            certificate = result.certificate.recompute(
                alpha=alpha, rule=rule, route=route, groups=groups, at_most=at_most
            )
        except CertificateError as error:
            raise InputError(f"image {result.index} has {error}") from error
        made.append(replace(result, certificate=certificate))
    return made


def expand_rules(rules: Sequence[str], sigmas: Sequence[float]) -> list[str]:
    """The curves that names stand for. The word of a kind of rules stands for all of them, as `single` for every
    `single:SIGMA`; `frontier` for the interval rule at nine quantiles of the route: the points between small and large
    radii that one bundle can serve without training."""
    groups = {kind: rule.all_named(tuple(sigmas)) for kind, rule in RULES.items()} | {FRONTIER: list(_QUANTILES)}
    return [name for rule in rules for name in groups.get(rule, [rule])]


def split_route(name: str) -> tuple[str, str | None]:
    """`interval@quantile:0.3` is the rule `interval` with that route; other names are rules with their default
    route."""
    rule, _, route = name.partition("@")
    return rule, route or None
