"""What a report compares: curves, read from results files (under one or several rules) or from logs of the field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.evaluation.curves import (
    COVERED_LEGEND,
    ORACLE,
    ORACLE_LEGEND,
    certified_radii,
    expand_rules,
    recomputed,
    split_route,
)
from dualsmooth.runtime.evaluation.field_log import LogRow, is_log, read_log
from dualsmooth.runtime.evaluation.results import Result, load_results
from dualsmooth.runtime.smoothing.derivation import Derivation
from dualsmooth.runtime.statistics.accuracy import correct_radius
from dualsmooth.runtime.statistics.groups import Groups
from dualsmooth.runtime.statistics.norms import L2, NORMS, Norm
from dualsmooth.runtime.statistics.rules.rule import Legend, Terms

COLOURS = 8
"""How many colours a report has; `Legend.colour` is a place among them."""


@dataclass(frozen=True)
class Curve:
    """One curve: its name, the certified radii [N] (-1 where wrong or abstained), and where they come from.

    `results` hold the certificates under this curve's rule; empty for logs, and for the oracle, which no one can issue.
    `legend`: how its rule is shown; None for logs, which do not say what made them. `norm` of the radii, for images of
    so many `values`.
    """

    name: str
    source: str
    radii: npt.NDArray[np.float64]
    index: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]
    results: tuple[Result, ...] = ()
    log: tuple[LogRow, ...] = ()
    legend: Legend | None = None
    facts: dict[str, str] = field(default_factory=dict)
    norm: Norm = NORMS[L2]
    values: int | None = None

    @classmethod
    def of(
        cls, results: Sequence[Result], *, name: str, source: str, rule: str | None = None, covered: bool = False
    ) -> Curve:
        """The curve of certified results; `rule="oracle"` picks the best single sigma of each image. `covered`: a group
        that holds the true class counts as right."""
        index = np.array([r.index for r in results], np.int64)
        truth = np.array([r.true_label for r in results], np.int64)
        facts = _facts(results)
        if rule == ORACLE:
            facts["rule"] = "oracle (the best single sigma of each image, knowing its label: a limit, no certificate)"
            radii = certified_radii(results, rule=rule)
            return cls(name, source, radii, index, truth, legend=ORACLE_LEGEND, facts=facts)
        if covered:
            radii = np.array([r.covered_radius for r in results])
            return cls(name, source, radii, index, truth, tuple(results), legend=COVERED_LEGEND, facts=facts)
        legend = results[0].certificate.terms.rule.legend
        return cls(name, source, certified_radii(results), index, truth, tuple(results), legend=legend, facts=facts)

    @property
    def decided(self) -> tuple[float, ...] | None:
        """The radii at which the curve was decided, where its budget asks no more than that."""
        budgets = {r.certificate.terms.budget for r in self.results}
        found = budgets.pop().decides if len(budgets) == 1 else None
        return found and tuple(self.norm.radius(r, self.values) for r in found)

    def in_norm(self, norm: Norm, values: int | None) -> Curve:
        """The same curve with the radii that follow in another norm, for images of so many values. Raises
        `InputError`."""
        radii = np.array([norm.radius(r, values) if r > 0 else r for r in self.radii.tolist()])
        return replace(self, radii=radii, norm=norm, values=values)

    @property
    def dashed(self) -> bool:
        """Whether it is shown as a measure for the others."""
        return self.legend is not None and self.legend.dashed


def colours(curves: Sequence[Curve]) -> list[int]:
    """The colour of each curve, a place among `COLOURS`: the first of a rule has its rule's, the others what is left,
    in order; where there are more curves than colours, some come twice."""
    chosen: dict[int, int] = {}
    for i, curve in enumerate(curves):
        if curve.legend is not None and curve.legend.colour not in chosen.values():
            chosen[i] = curve.legend.colour
    free = [c for c in range(COLOURS) if c not in chosen.values()] or list(range(COLOURS))
    rest = [i for i in range(len(curves)) if i not in chosen]
    return [value for _, value in sorted((chosen | {i: free[k % len(free)] for k, i in enumerate(rest)}).items())]


def load_curves(
    paths: Sequence[str | Path],
    *,
    rules: Sequence[str] = (),
    route: str | None = None,
    alpha: float | None = None,
    groups: Groups | None = None,
) -> list[Curve]:
    """All curves of the files: each log as it is, each results file as it was made, or under each of `rules` (`single`
    stands for every sigma, `oracle` for the best of them), recomputed from its votes. Where groups may answer, a second
    curve counts labels and groups; `groups` are tried on votes that were drawn without. Raises `InputError`.
    """
    curves: list[Curve] = []
    names = _short_names(paths)
    for path, short in zip(paths, names, strict=True):
        if is_log(path):
            curves.append(_log_curve(path, short))
            continue
        results = load_results(path)
        terms = results[0].certificate.terms
        wanted: Sequence[str | None] = expand_rules(rules, terms.sigmas) if rules else [None]
        for rule in wanted:
            name = rule or str(terms.rule)
            name = name if len(paths) == 1 else f"{short}: {name}"
            if rule == ORACLE:
                base = recomputed(results, alpha=alpha)
                curves.append(Curve.of(base, name=name, source=str(path), rule=rule))
                continue
            own_rule, own_route = (None, None) if rule is None else split_route(rule)
            for with_them in (True,) if groups is None else (False, groups):
                own = recomputed(results, rule=own_rule, route=own_route or route, alpha=alpha, groups=with_them)
                curves += _with_groups(own, name, str(path))
    return curves


def _with_groups(results: Sequence[Result], name: str, source: str) -> list[Curve]:
    """The curve of labels, and that of labels and coarser answers, where there may be some."""
    if not results[0].certificate.terms.coarser:
        return [Curve.of(results, name=name, source=source)]
    fine = Curve.of(results, name=f"{name}, label", source=source)
    return [fine, Curve.of(results, name=f"{name}, {COVERED_LEGEND.name}", source=source, covered=True)]


def _log_curve(path: str | Path, name: str) -> Curve:
    rows = tuple(read_log(path))
    # a correct row counts at r = 0 whatever its rounded radius is, as in the field's own scripts
    radii = [correct_radius(row.label, max(row.radius, math.ulp(0.0)), row.true_label) for row in rows]
    facts = {"images": f"{len(rows):,}", "source": "a log of the field; its radii are taken as they stand"}
    return Curve(
        name,
        str(path),
        np.array(radii),
        np.array([row.index for row in rows], np.int64),
        np.array([row.true_label for row in rows], np.int64),
        log=rows,
        facts=facts,
    )


def _facts(results: Sequence[Result]) -> dict[str, str]:
    certificate = results[0].certificate
    terms, artefact = certificate.terms, certificate.artefact
    fixed = sum(r.certificate.seed.fixed for r in results)
    return {
        "images": f"{len(results):,} of {results[0].dataset}",
        "rule": f"{terms.rule}, {_route(terms)}",
        "noise levels": ", ".join(f"{s:g}" for s in terms.sigmas) + _router(terms),
        "budget": str(terms.budget),
        "passes": terms.budget.spends,
        "alpha": f"{terms.alpha:g} a certificate",
        "engine": f"{artefact.engine}, provider {artefact.provider}, {artefact.precision}",
        "bundle": f"manifest {artefact.manifest_sha256[:16]}…",
        **({} if artefact.preprocessing is None else {"input": artefact.about}),
        "seeds": f"chosen by a person for {fixed:,} images" if fixed else "from the operating system's entropy",
        "certified": terms.subject,
        **({"answers": _answers(results)} if terms.coarser else {}),
        **({"recomputed": _origin(certificate.drawn)} if certificate.drawn is not None else {}),
        **({"derived": _old(certificate.derived)} if certificate.derived is not None else {}),
    }


def _old(derived: Derivation) -> str:
    return f"from votes of manifest {derived.old.manifest_sha256[:16]}…, with {derived.passes:,} paired passes a stream"


def _answers(results: Sequence[Result]) -> str:
    """How many images got which kind of answer."""
    found = [r.certificate for r in results]
    labels, none = sum(c.label is not None for c in found), sum(c.abstained for c in found)
    return f"{labels:,} labels, {len(found) - labels - none:,} groups or sets, {none:,} abstentions"


def _origin(drawn: Terms) -> str:
    return f"the votes were drawn for {drawn.rule}, {_route(drawn)}, alpha {drawn.alpha:g}"


def _route(terms: Terms) -> str:
    return "no router" if terms.sigma_e is None else f"route by {terms.route_kind}"


def _router(terms: Terms) -> str:
    return "" if terms.sigma_e is None else f"; estimator {terms.sigma_e:g}"


def conditions(curves: Sequence[Curve]) -> str:
    """Images, passes and alpha, as far as they are the same for all curves: what every figure should be read with."""
    first = curves[0].facts
    same = [name for name in first if all(curve.facts.get(name) == first[name] for curve in curves)]
    return "; ".join(f"{name}: {first[name]}" for name in ("images", "passes", "alpha") if name in same)


def _short_names(paths: Sequence[str | Path]) -> list[str]:
    """File names, or whole paths where two files have the same name."""
    stems = [Path(p).name.removesuffix(".jsonl").removesuffix(".tsv") for p in paths]
    return [stem if stems.count(stem) == 1 else str(path) for stem, path in zip(stems, paths, strict=True)]
