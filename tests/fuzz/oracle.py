"""A second opinion on certificates: the radius that votes prove, from DESIGN 3 alone and written without the runtime.

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


def bound(budget: str, looks: list[Json], event: frozenset[int], alpha: float) -> float:
    """The best lower bound on the probability of `event` over the looks of one stream."""
    kind, size = budget.split(":")[0], 1
    if kind == "adaptive":
        size = len(schedule(int(budget.split(":")[1]), 200, 2.0))
    best = 0.0
    for number, look in enumerate(looks):
        n, k = sum(look.values()), sum(v for c, v in look.items() if int(c) in event)
        share = alpha if size == 1 else alpha * (0.8 if number == size - 1 else 0.2 / (size - 1))
        best = max(best, mixture(k, n, min(alpha, 0.1)) if kind.startswith("at-") else clopper_pearson(k, n, share))
    return best


def schedule(last: int, first: int, ratio: float) -> list[int]:
    sizes = [last]
    while sizes[-1] / ratio >= first:
        sizes.append(min(sizes[-1] - 1, math.ceil(sizes[-1] / ratio)))
    return sorted(set(sizes))


def claims_of(rule: str, kind: str, count: int, route: int, label: int, alpha: float) -> list[Claim]:
    mine = frozenset([label])
    if rule.startswith("single:") or count == 1:
        return [("classifier", route, mine, alpha)]
    everything = range(count)
    below, above = frozenset(range(route + 1)), frozenset(range(route, count))
    if rule == "paper":
        events = [frozenset([route])] if kind == "mode" else [e for e in (below, above) if len(e) < count]
        shares = [alpha / 2 / len(events)] * len(events)
        return [
            *(("estimator", 0, e, a) for e, a in zip(events, shares, strict=True)),
            ("classifier", route, mine, alpha / 2),
        ]
    if kind == "median":
        events = [frozenset(range(j)) for j in range(1, count)] + [frozenset(range(j, count)) for j in range(1, count)]
        main = {e for e in (below, above) if len(e) < count}
    else:
        events = list({frozenset([route]): 0, **{frozenset(everything) - {s}: 0 for s in everything if s != route}})
        main = {frozenset([route])}
    rest = len(events) - len(main)
    shares = [
        alpha / 2 * (0.98 / len(main) if e in main else 0.02 / rest) if rest else alpha / 2 / len(events)
        for e in events
    ]
    claims: list[Claim] = [("estimator", 0, e, a) for e, a in zip(events, shares, strict=True)]
    return [
        *claims,
        *(("classifier", s, mine, alpha / 2 * (0.98 if s == route else 0.02 / (count - 1))) for s in everything),
    ]


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
        half = next(j for j in range(count) if 2 * sum(counts[: j + 1]) >= sum(counts))
        route = half if kind == "median" else counts.index(max(counts))
    counts = chosen(f"classifier/{route}/selection", terms["classes"])
    label = counts.index(max(counts))
    claims = claims_of(rule, kind, count, route, label, alpha)
    lower = {
        (stage, level, event): bound(terms["budget"], votes.get(f"{stage}/{level}/estimation", []), event, share)
        for stage, level, event, share in claims
    }
    z = {key: float(special.ndtri(p)) for key, p in lower.items()}

    def best(allowed: frozenset[int]) -> float:
        return max((q for (stage, _, e), q in z.items() if stage == "estimator" and e <= allowed), default=-math.inf)

    radius = math.inf
    for s in range(count):
        says = sigmas[s] * max(0.0, z.get(("classifier", s, frozenset([label])), 0.0))
        if len(claims) == 1:
            excluded = 0.0 if s == route else math.inf
        elif kind == "median":
            excluded = sigma_e * max(0.0, best(frozenset(range(s))), best(frozenset(range(s + 1, count))))
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
    share, limit = stated["alpha"] / len(sigmas) / 2, math.inf
    for level in reversed(range(len(sigmas))):
        select, look = votes[f"classifier/{level}/selection"][-1], votes[f"classifier/{level}/estimation"][-1]
        counts = [select.get(str(c), 0) for c in range(classes)]
        label, n = counts.index(max(counts)), sum(look.values())
        says = sigmas[level] * max(0.0, float(special.ndtri(clopper_pearson(look.get(str(label), 0), n, share))))
        no = [clopper_pearson(n - look.get(str(c), 0), n, share / classes) for c in range(classes)]
        abstains = sigmas[level] * max(0.0, float(special.ndtri(np.min(no))))
        radius = min(says, limit)
        if says > 0 or abstains == 0 or level == 0:
            break
        limit = min(limit, abstains)
    return (label if radius >= 1e-6 else None), radius
