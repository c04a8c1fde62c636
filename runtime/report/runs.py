"""What a report compares: runs, read from results files (under one or several rules) or from logs of the field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.evaluation.curves import certified_radii, expand_rules, split_route
from dualsmooth.runtime.evaluation.field_log import LogRow, is_log, read_log
from dualsmooth.runtime.evaluation.results import Result, read_results
from dualsmooth.runtime.statistics.budgets import AtRadii, AtRadius, Budget, Fixed
from dualsmooth.runtime.statistics.certification import Terms


@dataclass(frozen=True)
class Run:
    """One curve: its name, the certified radii [N] (-1 where wrong or abstained), and where they come from.

    `results` hold the certificates under this run's rule; empty for logs, and for the oracle, which no one can issue.
    """

    name: str
    source: str
    radii: npt.NDArray[np.float64]
    index: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64]
    results: tuple[Result, ...] = ()
    log: tuple[LogRow, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Sequence[Result], *, name: str, source: str, rule: str | None = None) -> Run:
        """The run of certified results; `rule="oracle"` picks the best single sigma of each image."""
        index = np.array([r.index for r in results], np.int64)
        truth = np.array([r.true_label for r in results], np.int64)
        facts = _facts(results)
        if rule == "oracle":
            facts["rule"] = "oracle (the best single sigma of each image, knowing its label: a limit, no certificate)"
            return cls(name, source, certified_radii(results, rule=rule), index, truth, facts=facts)
        return cls(name, source, certified_radii(results), index, truth, tuple(results), facts=facts)

    @property
    def decided(self) -> tuple[float, ...] | None:
        """The radii at which the run was decided, where its budget asks no more than that."""
        budgets = {r.certificate.terms.budget for r in self.results}
        if len(budgets) == 1:
            budget = budgets.pop()
            if isinstance(budget, AtRadii):
                return budget.radii
            if isinstance(budget, AtRadius):
                return (budget.r,)
        return None


def load_runs(
    paths: Sequence[str | Path],
    *,
    rules: Sequence[str] = (),
    route: str | None = None,
    alpha: float | None = None,
) -> list[Run]:
    """All runs of the files: each log as it is, each results file as it was made, or under each of `rules` (`single`
    stands for every sigma, `oracle` for the best of them), recomputed from its votes. Raises `InputError`.
    """
    runs: list[Run] = []
    names = _short_names(paths)
    for path, short in zip(paths, names, strict=True):
        if is_log(path):
            runs.append(_log_run(path, short))
            continue
        results = read_results(path)
        terms = results[0].certificate.terms
        wanted: Sequence[str | None] = expand_rules(rules, terms.sigmas) if rules else [None]
        for rule in wanted:
            name = rule or terms.rule
            name = name if len(paths) == 1 else f"{short}: {name}"
            if rule == "oracle":
                base = _recomputed(results, None, None, alpha)
                runs.append(Run.of(base, name=name, source=str(path), rule=rule))
                continue
            own_rule, own_route = (None, None) if rule is None else split_route(rule)
            own = _recomputed(results, own_rule, own_route or route, alpha)
            runs.append(Run.of(own, name=name, source=str(path)))
    return runs


def _recomputed(
    results: Sequence[Result], rule: str | None, route: str | None, alpha: float | None
) -> Sequence[Result]:
    if rule is None and route is None and alpha is None:
        return results
    made = []
    for result in results:
        try:
            certificate = result.certificate.recompute(alpha=alpha, rule=rule, route=route)
        except CertificateError as error:
            raise InputError(f"image {result.index} has {error}") from error
        made.append(replace(result, certificate=certificate))
    return made


def _log_run(path: str | Path, name: str) -> Run:
    rows = tuple(read_log(path))
    # a correct row counts at r = 0 whatever its rounded radius is, as in the field's own scripts
    radii = [max(row.radius, math.ulp(0.0)) if row.correct else -1.0 for row in rows]
    facts = {"images": f"{len(rows):,}", "source": "a log of the field; its radii are taken as they stand"}
    return Run(
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
        "rule": f"{terms.rule}, route by {terms.route_kind}",
        "noise levels": f"{', '.join(f'{s:g}' for s in terms.sigmas)}; estimator {terms.sigma_e:g}",
        "budget": str(terms.budget),
        "passes": _passes(terms.budget),
        "alpha": f"{terms.alpha:g} a certificate",
        "engine": f"{artefact.engine}, provider {artefact.provider}, {artefact.precision}",
        "bundle": f"manifest {artefact.manifest_sha256[:16]}…",
        "seeds": f"chosen by a person for {fixed:,} images" if fixed else "from the operating system's entropy",
        "certified": terms.subject,
        **({"recomputed": _origin(certificate.drawn)} if certificate.drawn is not None else {}),
    }


def _origin(drawn: Terms) -> str:
    return f"the votes were drawn for {drawn.rule}, route by {drawn.route_kind}, alpha {drawn.alpha:g}"


def _passes(budget: Budget) -> str:
    most = budget.looks[-1]
    return f"N = {most:,} a stage and level" if isinstance(budget, Fixed) else f"at most {most:,} a stage and level"


def conditions(runs: Sequence[Run]) -> str:
    """Images, passes and alpha, as far as they are the same for all runs: what every figure should be read with."""
    first = runs[0].facts
    same = [name for name in first if all(run.facts.get(name) == first[name] for run in runs)]
    return "; ".join(f"{name}: {first[name]}" for name in ("images", "passes", "alpha") if name in same)


def _short_names(paths: Sequence[str | Path]) -> list[str]:
    """File names, or whole paths where two files have the same name."""
    stems = [Path(p).name.removesuffix(".jsonl").removesuffix(".tsv") for p in paths]
    return [stem if stems.count(stem) == 1 else str(path) for stem, path in zip(stems, paths, strict=True)]
