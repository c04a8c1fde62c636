"""The certificate: label, radius, confidence, and all that is needed to check it again. Schema: docs/certificate.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.bounds import RADIUS_STEP
from dualsmooth.runtime.budgets import parse_budget
from dualsmooth.runtime.certification import Outcome, Terms, check_looks, settle
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.noise import Seed
from dualsmooth.runtime.votes import Tally

FORMAT = "dualsmooth-certificate"
VERSION = 1


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
    """With probability at least 1 - `alpha` over the noise: the deployed dual classifier returns `label` for every
    input closer than `radius` in L2 (input units). Where `abstained`, `label` is None and `radius` 0.
    """

    outcome: Outcome
    terms: Terms
    tally: Tally
    seed: Seed
    artefact: Artefact
    version: str

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
    def route_radius(self) -> float:
        """Radius within which no other level is the route; infinite where there is one level only."""
        return self.outcome.route_radius

    @property
    def class_radius(self) -> float:
        """Radius of the classifier smoothed at `sigma`."""
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
        return tuple(found)

    def recompute(
        self, *, alpha: float | None = None, rule: str | None = None, route: str | None = None
    ) -> Certificate:
        """The certificate that the same votes prove under another alpha, rule or route, without new passes.

        Each result holds at its own alpha; choosing among several after seeing them is not covered. Raises
        `CertificateError` where the other rule needs votes that were not drawn.
        """
        old = self.terms
        terms = Terms.checked(
            old.sigmas,
            old.sigma_e,
            old.classes,
            alpha=old.alpha if alpha is None else alpha,
            rule=rule or old.rule,
            route=route or (None if rule else old.route_kind),
            budget=old.budget,
        )
        return Certificate(settle(terms, self.tally), terms, self.tally, self.seed, self.artefact, self.version)

    def to_dict(self) -> dict[str, Any]:
        outcome, terms = self.outcome, self.terms
        return {
            "format": FORMAT,
            "version": VERSION,
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
        }

    def to_json(self) -> str:
        """One line of JSON with everything needed to check the certificate again."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Any) -> Certificate:
        """Read a certificate and recompute it from its counts.

        Raises `CertificateError` unless every stated figure follows from the stated votes. What is returned holds the
        recomputed figures.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT or data.get("version") != VERSION:
            raise CertificateError(
                f"not a certificate; expected a JSON object with format {FORMAT!r}, version {VERSION}"
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
            tally = Tally.from_dict(data["votes"], classes=terms.classes, levels=len(sigmas))
            check_looks(terms, tally)
            artefact, seed = Artefact.from_dict(data["artefact"]), Seed.from_dict(data["seed"])
            made = cls(settle(terms, tally), terms, tally, seed, artefact, str(data["dualsmooth"]))
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
    """With probability at least 1 - `alpha`: `label` is what the dual classifier returns for the input, or None
    (abstention). No radius is claimed."""

    label: int | None
    sigma: float
    levels: tuple[float, ...]
    alpha: float
    passes: int

    @property
    def abstained(self) -> bool:
        return self.label is None

    def to_json(self) -> str:
        return json.dumps({**vars(self), "levels": list(self.levels), "abstained": self.abstained})

    @classmethod
    def from_json(cls, text: str) -> Prediction:
        """Inverse of `to_json`. Raises `CertificateError`."""
        try:
            data = strict_json.loads(text)
            label = data["label"]
            if not (label is None or (type(label) is int and label >= 0)) or type(data["passes"]) is not int:
                raise TypeError("label or passes")
            levels = tuple(_number(s) for s in data["levels"])
            return cls(label, _number(data["sigma"]), levels, _number(data["alpha"]), data["passes"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CertificateError(f"prediction is incomplete or damaged ({type(error).__name__})") from error


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
