"""The certificate: label, radius, confidence, and all that is needed to check it again. Schema: docs/certificate.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.statistics.bounds import RADIUS_STEP
from dualsmooth.runtime.statistics.budgets import parse_budget
from dualsmooth.runtime.statistics.certification import Outcome, Terms, check_looks, settle
from dualsmooth.runtime.statistics.votes import Tally

FORMAT = "dualsmooth-certificate"
VERSION = 2
"""What is issued; version 1 is read as well (`edition_1`)."""


@dataclass(frozen=True)
class Artefact:
    """What was sampled: the deployed files, and how they were run."""

    manifest_sha256: str
    files: Mapping[str, str]
    precision: str
    provider: str
    engine: str
    image_sha256: str

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "files": dict(self.files)}

    @classmethod
    def from_dict(cls, data: Any) -> Artefact:
        """Inverse of `to_dict`. Raises `CertificateError`."""
        names = set(cls.__dataclass_fields__)
        if isinstance(data, Mapping) and set(data) == names and isinstance(data["files"], Mapping):
            texts = [*(data[name] for name in names - {"files"}), *data["files"].values()]
            if all(isinstance(text, str) for text in texts):
                return cls(**data)
        raise CertificateError(f"artefact must hold {', '.join(sorted(names))}, all of them texts")


@dataclass(frozen=True)
class Certificate:
    """With probability at least 1 - `alpha` over the noise: `subject`, a smoothed classifier, returns `label` for every
    input closer than `radius` in L2 (input units). Where `abstained`, `label` is None and `radius` 0.

    Rules and routes certify different classifiers: one sigma, the cascade, and the dual classifier by each route may
    give an input different labels, each of them rightly certified. `drawn`: the terms that the votes were drawn for,
    where the certificate was recomputed under others.
    """

    outcome: Outcome
    terms: Terms
    tally: Tally
    seed: Seed
    artefact: Artefact
    version: str
    drawn: Terms | None = None

    @property
    def label(self) -> int | None:
        return self.outcome.label

    @property
    def radius(self) -> float:
        """Certified L2 radius, rounded down to 1e-6."""
        return self.outcome.radius

    @property
    def sigma(self) -> float:
        """The guessed route's noise level."""
        return self.terms.sigmas[self.outcome.route]

    @property
    def abstained(self) -> bool:
        return self.outcome.label is None

    @property
    def subject(self) -> str:
        """The smoothed classifier that keeps its label, in words."""
        return self.terms.subject

    @property
    def route_radius(self) -> float:
        """Radius within which no other level is the route; infinite where there is one level only. Holds with
        probability 1 - alpha by itself, not together with `class_radius`."""
        return self.outcome.route_radius

    @property
    def class_radius(self) -> float:
        """Radius of the classifier smoothed at `sigma`. Holds with probability 1 - alpha by itself."""
        return self.outcome.class_radius

    @property
    def passes(self) -> int:
        """Forward passes of both stages, selection included."""
        return self.tally.total()

    @property
    def alpha(self) -> float:
        return self.terms.alpha

    def caveats(self) -> tuple[str, ...]:
        """Why this certificate convinces fewer readers than it could: none for the defaults. `verify --strict` accepts
        none of them."""
        found = []
        if self.seed.fixed:
            found.append("the seed was chosen by a person, who may have tried several")
        if self.seed.noise.shared:
            found.append("its noise is shared with other certificates, whose failures are correlated with its own")
        if self.terms.edition == 1 and self.drawn is None:
            found.append(
                "version 1: its noise is not bound to its image, bundle and terms, which could be chosen after it"
            )
        if self.drawn is not None:
            found.append(
                f"recomputed: its votes were drawn for {_stated(self.drawn)}, and seen before its terms were chosen"
            )
        return tuple(found)

    def recompute(
        self, *, alpha: float | None = None, rule: str | None = None, route: str | None = None
    ) -> Certificate:
        """The certificate that the same votes prove under another alpha, rule or route, without new passes.

        Each result holds at its own alpha; choosing among several after seeing them is not covered, so it says what it
        was drawn for. Certificates of version 1 get the shares of version 2. Raises `CertificateError` where the other
        rule needs votes that were not drawn.
        """
        old, drawn = self.terms, self.drawn or self.terms
        terms = Terms.checked(
            old.sigmas,
            old.sigma_e,
            old.classes,
            alpha=old.alpha if alpha is None else alpha,
            rule=rule or old.rule,
            route=route or (None if rule else old.route_kind),
            budget=parse_budget(str(old.budget)),
        )
        return replace(self, outcome=settle(terms, self.tally), terms=terms, drawn=None if terms == drawn else drawn)

    @property
    def drawn_seed(self) -> Seed:
        """The seed as its streams are keyed: bound to image, manifest and the terms that the votes were drawn for."""
        drawn = self.drawn or self.terms
        if drawn.edition == 1:
            return self.seed
        return bound(self.seed, self.artefact.image_sha256, self.artefact.manifest_sha256, drawn.words())

    def to_dict(self) -> dict[str, Any]:
        outcome, terms = self.outcome, self.terms
        drawn = None if self.drawn is None else {"version": self.drawn.edition, **self.drawn.to_dict()}
        later = {} if terms.edition == 1 else {"subject": terms.subject, "recomputed_from": drawn}
        return {
            "format": FORMAT,
            "version": terms.edition,
            "label": outcome.label,
            "radius": outcome.radius,
            "sigma": self.sigma,
            "abstained": self.abstained,
            "alpha": terms.alpha,
            "route_radius": _finite(outcome.route_radius),
            "class_radius": outcome.class_radius,
            "passes": self.passes,
            "route": outcome.route,
            "guess": outcome.guess,
            "exclusion": [_finite(e) for e in outcome.exclusion],
            "class_radii": list(outcome.class_radii),
            "terms": {
                "rule": terms.rule,
                "route": terms.route_kind,
                "budget": str(terms.budget),
                "sigmas": list(terms.sigmas),
                "sigma_e": terms.sigma_e,
                "classes": terms.classes,
            },
            "votes": self.tally.to_dict(),
            "seed": self.seed.to_dict(),
            "artefact": self.artefact.to_dict(),
            "dualsmooth": self.version,
            **later,
        }

    def to_json(self) -> str:
        """One line of JSON with everything needed to check the certificate again."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Any) -> Certificate:
        """Read a certificate and recompute it from its counts.

        Raises `CertificateError` unless every stated figure follows from the stated votes. What is returned holds the
        recomputed figures, which count: stated radii may differ by one in the last digit.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT or data.get("version") not in (1, VERSION):
            raise CertificateError(
                f"not a certificate; expected a JSON object with format {FORMAT!r}, version {VERSION} (or 1)"
            )
        try:
            stated = data["terms"]
            sigmas = tuple(_number(s) for s in stated["sigmas"])
            if not 1 <= len(sigmas) <= 64 or sigmas[0] <= 0 or any(a >= b for a, b in pairwise(sigmas)):
                raise CertificateError("terms.sigmas must be positive and ascending")
            if (
                type(stated["classes"]) is not int
                or not 2 <= stated["classes"] <= 100_000
                or _number(stated["sigma_e"]) <= 0
            ):
                raise CertificateError("terms.classes must be an integer from 2 and terms.sigma_e positive")
            terms = Terms.checked(
                sigmas,
                _number(stated["sigma_e"]),
                stated["classes"],
                alpha=_number(data["alpha"]),
                rule=str(stated["rule"]),
                route=str(stated["route"]),
                budget=parse_budget(str(stated["budget"])),
            )
            terms = terms.of_edition_1() if data["version"] == 1 else terms
            tally = Tally.from_dict(data["votes"], classes=terms.classes, levels=len(sigmas))
            check_looks(terms, tally)
            artefact, seed = Artefact.from_dict(data["artefact"]), Seed.from_dict(data["seed"])
            drawn = _drawn(terms, data.get("recomputed_from"))
            made = cls(settle(terms, tally), terms, tally, seed, artefact, str(data["dualsmooth"]), drawn)
            fresh = made.to_dict()
        except InputError as error:
            raise CertificateError(f"certificate terms are not usable: {error}") from error
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CertificateError(
                f"certificate is incomplete or damaged ({type(error).__name__}: {str(error)[:80]})"
            ) from error
        odd = sorted((set(data) ^ set(fresh)) | (set(data["seed"]) - set(fresh["seed"])), key=str)
        if odd:
            raise CertificateError(f"the field {str(odd[0])[:60]!r} is missing, or is not known here and not checked")
        fresh["seed"] = {name: fresh["seed"][name] for name in data["seed"]}  # older ones state less
        for name, value in fresh.items():
            radii = name not in ("sigma", "alpha")
            if not (_same(data[name], value) if radii else type(data[name]) in (int, float) and data[name] == value):
                raise CertificateError(
                    f"{name} is stated as {str(data.get(name))[:60]}, but the votes give {str(value)[:60]}"
                )
        return made

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """Inverse of `to_json`; raises `CertificateError`."""
        try:
            data = strict_json.loads(text)
        except ValueError as error:
            raise CertificateError(f"certificate is not JSON ({str(error)[:80]})") from error
        return cls.from_dict(data)


@dataclass(frozen=True)
class Prediction:
    """With probability at least 1 - `alpha`: `label` is what the dual classifier, by this route, returns for the input,
    or None (abstention). No radius is claimed. `seed`, and the hashes of manifest and image: what was sampled."""

    label: int | None
    sigma: float
    levels: tuple[float, ...]
    alpha: float
    route: str
    passes: int
    seed: Seed
    manifest_sha256: str
    image_sha256: str

    @property
    def abstained(self) -> bool:
        return self.label is None

    def to_json(self) -> str:
        stated = {**vars(self), "levels": list(self.levels), "seed": self.seed.to_dict()}
        return json.dumps({**stated, "abstained": self.abstained})

    @classmethod
    def from_json(cls, text: str) -> Prediction:
        """Inverse of `to_json`. Raises `CertificateError`."""
        try:
            data = strict_json.loads(text)
            label = data["label"]
            if not (label is None or (type(label) is int and label >= 0)) or type(data["passes"]) is not int:
                raise TypeError("label or passes")
            names = ("route", "manifest_sha256", "image_sha256")
            if not all(isinstance(data[name], str) for name in names):
                raise TypeError(", ".join(names))
            return cls(
                label=label,
                sigma=_number(data["sigma"]),
                levels=tuple(_number(s) for s in data["levels"]),
                alpha=_number(data["alpha"]),
                passes=data["passes"],
                seed=Seed.from_dict(data["seed"]),
                **{name: data[name] for name in names},
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CertificateError(f"prediction is incomplete or damaged ({type(error).__name__})") from error


def bound(seed: Seed, image_sha256: str, manifest_sha256: str, words: str) -> Seed:
    """The seed for these votes alone. Where noise is shared by the images of a run, it is not bound to one of them."""
    return seed.bound("" if seed.noise.shared else image_sha256, manifest_sha256, words)


def _drawn(terms: Terms, stated: Any) -> Terms | None:
    """The terms that the votes of a recomputed certificate were drawn for. Raises `InputError`, `KeyError`."""
    if stated is None:
        return None
    drawn = Terms.checked(
        terms.sigmas,
        terms.sigma_e,
        terms.classes,
        alpha=_number(stated["alpha"]),
        rule=str(stated["rule"]),
        route=str(stated["route"]),
        budget=parse_budget(str(stated["budget"])),
    )
    if str(drawn.budget) != str(terms.budget) or type(stated["version"]) is not int or stated["version"] not in (1, 2):
        raise InputError("recomputed_from must state version 1 or 2, and the budget of the terms")
    return drawn.of_edition_1() if stated["version"] == 1 else drawn


def _stated(terms: Terms) -> str:
    return f"{terms.rule}, route {terms.route_kind}, alpha {terms.alpha:g}, version {terms.edition}"


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value


def _same(stated: Any, fresh: Any) -> bool:
    """Equal, or radii as they are printed, off by one in the last digit (another SciPy may round the other way)."""
    if isinstance(fresh, list):
        return isinstance(stated, list) and len(stated) == len(fresh) and all(map(_same, stated, fresh))
    if type(fresh) is float:
        near = type(stated) in (int, float) and fresh - 1.5 * RADIUS_STEP <= stated <= fresh + 1.5 * RADIUS_STEP
        return near and stated == round(stated * 1e6) / 1e6
    return type(stated) is type(fresh) and bool(stated == fresh)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{str(value)[:40]} is not a finite number")
    return float(value)
