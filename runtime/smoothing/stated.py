"""What a certificate's file states, read and compared with what its votes give. A file may come from anyone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.rounding import RADIUS_STEP
from dualsmooth.runtime.statistics.budgets import parse_budget
from dualsmooth.runtime.statistics.certification import checked_terms, of_edition_1
from dualsmooth.runtime.statistics.groups import Groups
from dualsmooth.runtime.statistics.rules.rule import Terms

VERSIONS = (1, 2)
"""Of certificates: 2 is issued, 1 is read as well (`rules.edition_1`)."""


def stated_terms(data: Mapping[str, Any]) -> Terms:
    """The terms of a certificate. Raises `CertificateError`, `InputError`, `KeyError`, `TypeError`."""
    stated = data["terms"]
    sigmas = tuple(number(s) for s in stated["sigmas"])
    if not 1 <= len(sigmas) <= 64 or sigmas[0] <= 0 or any(a >= b for a, b in pairwise(sigmas)):
        raise CertificateError("terms.sigmas must be positive and ascending")
    classes, sigma_e = stated["classes"], None if stated["sigma_e"] is None else number(stated["sigma_e"])
    if type(classes) is not int or not 2 <= classes <= 100_000 or (sigma_e is not None and sigma_e <= 0):
        raise CertificateError("terms.classes must be an integer from 2 and terms.sigma_e positive")
    if sigma_e is None and len(sigmas) > 1:
        raise CertificateError("terms.sigma_e must be there where terms.sigmas are several: they are routed between")
    sure = tuple(number(least) for least in stated.get("sure", ()))
    if len(sure) not in {0, len(sigmas) - 1} or not all(0 < least < 1 for least in sure):
        raise CertificateError("terms.sure must be numbers between 0 and 1, one for each level above the smallest")
    terms = _terms(sigmas, sigma_e, classes, stated, data["alpha"], data["version"])
    return replace(terms, sure=sure)


def drawn_terms(terms: Terms, stated: Any) -> Terms | None:
    """The terms that the votes of a recomputed certificate were drawn for; None where it is not one. Raises
    `InputError`, `KeyError`, `TypeError`."""
    if stated is None:
        return None
    drawn = _terms(terms.sigmas, terms.sigma_e, terms.classes, stated, stated["alpha"], stated["version"])
    drawn = replace(drawn, sure=terms.sure)
    version = stated["version"]
    if str(drawn.budget) != str(terms.budget) or type(version) is not int or version not in VERSIONS:
        raise InputError("recomputed_from must state version 1 or 2, and the budget of the terms")
    return drawn


def _terms(
    sigmas: tuple[float, ...], sigma_e: float | None, classes: int, stated: Mapping[str, Any], alpha: Any, version: Any
) -> Terms:
    terms = checked_terms(
        sigmas,
        sigma_e,
        classes,
        alpha=number(alpha),
        rule=str(stated["rule"]),
        route=str(stated["route"]),
        budget=parse_budget(str(stated["budget"])),
        groups=Groups.of(stated["groups"], classes) if "groups" in stated else None,
        at_most=stated.get("at_most", 1),
    )
    return of_edition_1(terms) if version == 1 else terms


def require_same(stated: Mapping[str, Any], fresh: Mapping[str, Any]) -> None:
    """Raises `CertificateError` unless a file states what was recomputed from its votes, and nothing else."""
    odd = sorted((set(stated) ^ set(fresh)) | (set(stated["seed"]) - set(fresh["seed"])), key=str)
    if odd:
        raise CertificateError(f"the field {str(odd[0])[:60]!r} is missing, or is not known here and not checked")
    seed = {name: fresh["seed"][name] for name in stated["seed"]}  # older ones state less
    for name, value in {**fresh, "seed": seed}.items():
        if name in ("sigma", "alpha"):
            same = type(stated[name]) in (int, float) and stated[name] == value
        else:
            same = _same(stated[name], value)
        if not same:
            raise CertificateError(
                f"{name} is stated as {str(stated.get(name))[:60]}, but the votes give {str(value)[:60]}"
            )


def _same(stated: Any, fresh: Any) -> bool:
    """Equal, or radii as they are printed, off by one in the last digit (another SciPy may round the other way)."""
    if isinstance(fresh, list):
        return isinstance(stated, list) and len(stated) == len(fresh) and all(map(_same, stated, fresh))
    if type(fresh) is float:
        near = type(stated) in (int, float) and fresh - 1.5 * RADIUS_STEP <= stated <= fresh + 1.5 * RADIUS_STEP
        return near and stated == round(stated * 1e6) / 1e6
    return type(stated) is type(fresh) and bool(stated == fresh)


def number(value: Any) -> float:
    """A finite number as a file states it. Raises `TypeError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{str(value)[:40]} is not a finite number")
    return float(value)


def terms_words(terms: Terms) -> str:
    """Terms for people, in a line."""
    coarser = "".join(f", {name}" for name in terms.coarser_dict())
    return f"{terms.rule}, route {terms.route_kind}, alpha {terms.alpha:g}, version {terms.edition}{coarser}"


def finite(value: float) -> float | None:
    """A radius as JSON has it: None where it is infinite."""
    return None if math.isinf(value) else value
