"""A second opinion on certificates: the radius that votes prove, from docs/mathematics.md alone, without the runtime.

It shares no code with `dualsmooth`, so that a mistake there cannot approve itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

Json = dict[str, Any]
Claim = tuple[str, int, frozenset[int], float]


def clopper_pearson(k: float, n: float, alpha: float) -> float:
    return float(special.betaincinv(k, n - k + 1, alpha)) if k > 0 else 0.0


def mixture(h: float, t: float, alpha: float) -> float:
    """The largest p0 that the Krichevsky–Trofimov test rejects after h successes of t, by bisection."""

    def rejected(p: float) -> bool:
        cut = math.log(special.betaincc(h + 0.5, t - h + 0.5, p) or 5e-324) - math.log(special.betaincc(0.5, 0.5, p))
        mixed = special.betaln(h + 0.5, t - h + 0.5) - special.betaln(0.5, 0.5)
        return bool(mixed - h * math.log(p) - (t - h) * math.log1p(-p) + cut >= -math.log(alpha))

    low, high = 0.0, min(h / t, 1 - 1e-12)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle > 0 and rejected(middle) else (low, middle)
    return low


def bound(budget: str, looks: list[Json], event: frozenset[int], alpha: float, classes: int) -> float:
    """The best lower bound over the looks of one stream: on the probability of `event`, or, for the event of "not" (-1)
    and a label, on that of each class but the label not to be voted for."""
    kind, arguments = budget.split(":")[0], budget.split(":")[1:]
    size, horizon = 1, 0
    if kind == "adaptive":
        size = len(schedule(int(arguments[0]), 200, 2.0))
    elif kind.startswith("at-"):
        horizon = int(arguments[1]) if len(arguments) > 1 else 100_000
    best = 0.0
    for number, look in enumerate(looks):
        n, k = sum(look.values()), sum(v for c, v in look.items() if int(c) in event)
        if -1 in event:
            k = n - max(look.get(str(c), 0) for c in range(classes) if c not in event)
        if kind.startswith("at-"):
            best = max(best, mixture(k, n, min(0.8 * alpha, 0.1)))
            best = max(best, clopper_pearson(k, n, 0.2 * alpha)) if n == horizon else best
        else:
            share = alpha if size == 1 else alpha * (0.8 if number == size - 1 else 0.2 / (size - 1))
            best = max(best, clopper_pearson(k, n, share))
    return best


def schedule(last: int, first: int, ratio: float) -> list[int]:
    sizes = [last]
    while sizes[-1] / ratio >= first:
        sizes.append(min(sizes[-1] - 1, math.ceil(sizes[-1] / ratio)))
    return sorted(set(sizes))


def claims_of(rule: str, kind: str, count: int, classes: int, route: int, label: int, alpha: float) -> list[Claim]:
    """The claims and shares of version 2; -1 in an event stands for "any class but the one that comes closest"."""

    def says(level: int, share: float) -> list[Claim]:
        if classes == 2:
            return [("classifier", level, frozenset([label]), share)]
        return [
            ("classifier", level, frozenset([label]), 0.9 * share),
            ("classifier", level, frozenset([label, -1]), 0.1 * share),
        ]

    if rule.startswith("single:") or count == 1:
        return says(route, alpha)
    out = alpha if rule == "paper" else 0.8 * alpha
    claims = says(route, alpha)
    for s in range(count):
        if s == route:
            continue
        if rule == "interval":
            claims += says(s, 0.2 * alpha)
        if kind != "mode":
            facing = range(s) if s > route else range(s + 1, count)
            claims.append(("estimator", 0, frozenset(facing), out))
        elif count == 2:
            claims.append(("estimator", 0, frozenset([route]), out))
        else:
            claims.append(("estimator", 0, frozenset(range(count)) - {s}, 0.1 * out))
    if kind == "mode" and count > 2:
        claims.append(("estimator", 0, frozenset([route]), 0.9 * out))
    return claims


def proven(stated: Json) -> tuple[int | None, float]:
    """Label and largest radius that the votes, terms and alpha of a certificate's JSON prove."""
    terms, votes, alpha = stated["terms"], stated["votes"], stated["alpha"]
    sigmas, sigma_e, rule, kind = terms["sigmas"], terms["sigma_e"], terms["rule"], terms["route"]
    count = len(sigmas)
    if rule == "multiscale":
        return _cascade(stated)

    def chosen(stream: str, width: int) -> list[int]:
        look = votes[stream][-1]
        return [look.get(str(c), 0) for c in range(width)]

    if rule.startswith("single:"):
        route = sigmas.index(float(rule[7:]))
    elif count == 1:
        route = 0
    else:
        counts = chosen("estimator/0/selection", count)
        q = float(kind[9:]) if kind.startswith("quantile:") else 0.5
        at = next(j for j in range(count) if sum(counts[: j + 1]) >= q * sum(counts))
        route = counts.index(max(counts)) if kind == "mode" else at
    counts = chosen(f"classifier/{route}/selection", terms["classes"])
    label = counts.index(max(counts))
    classes = terms["classes"]
    lower: dict[tuple[str, int, frozenset[int]], float] = {}
    for stage, level, event, share in claims_of(rule, kind, count, classes, route, label, alpha):
        looks = votes.get(f"{stage}/{level}/estimation", [])
        lower[stage, level, event] = bound(terms["budget"], looks, event, share, classes)
    z = {key: float(special.ndtri(p)) for key, p in lower.items()}

    def best(allowed: frozenset[int]) -> float:
        return max((q for (stage, _, e), q in z.items() if stage == "estimator" and e <= allowed), default=-math.inf)

    radius = math.inf
    for s in range(count):
        top = z.get(("classifier", s, frozenset([label])), -math.inf)
        rival = z.get(("classifier", s, frozenset([label, -1])), -math.inf)
        says = sigmas[s] * max(0.0, top, (top + rival) / 2)
        if rule.startswith("single:") or count == 1:
            excluded = 0.0 if s == route else math.inf
        elif kind != "mode":
            cut = float(special.ndtri(float(kind[9:]))) if kind.startswith("quantile:") else 0.0
            heads, tails = best(frozenset(range(s))), best(frozenset(range(s + 1, count)))
            excluded = sigma_e * max(0.0, heads - cut, tails + cut)
        elif s == route:
            excluded = 0.0
        else:
            pair = best(frozenset([route])) + best(frozenset(range(count)) - {s})
            excluded = sigma_e * max(0.0, pair / 2)
        radius = min(radius, max(says, excluded))
    return (label if radius >= 1e-6 else None), radius


def _cascade(stated: Json) -> tuple[int | None, float]:
    terms, votes = stated["terms"], stated["votes"]
    sigmas, classes = terms["sigmas"], terms["classes"]
    share, limit = stated["alpha"] / len(sigmas), math.inf
    for level in reversed(range(len(sigmas))):
        select, look = votes[f"classifier/{level}/selection"][-1], votes[f"classifier/{level}/estimation"][-1]
        counts = [select.get(str(c), 0) for c in range(classes)]
        label, n = counts.index(max(counts)), sum(look.values())
        says = sigmas[level] * max(0.0, float(special.ndtri(clopper_pearson(look.get(str(label), 0), n, share))))
        no = [clopper_pearson(n - look.get(str(c), 0), n, share) for c in range(classes)]
        abstains = sigmas[level] * max(0.0, float(special.ndtri(np.min(no))))
        radius = min(says, limit)
        if says > 0 or abstains == 0 or level == 0:
            break
        limit = min(limit, abstains)
    return (label if radius >= 1e-6 else None), radius
