"""The certificate: label, radius, confidence, and all that is needed to check it again. Schema: docs/certificate.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.datasets.single_images import checked_image
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.rounding import confidence, shown
from dualsmooth.runtime.smoothing.artefact import Artefact, bound, image_sha256
from dualsmooth.runtime.smoothing.derivation import Derivation, settled
from dualsmooth.runtime.smoothing.stated import VERSIONS, drawn_terms, finite, require_same, stated_terms, terms_words
from dualsmooth.runtime.smoothing.view import Picture, View, class_name, eight_bits, label_words, view
from dualsmooth.runtime.statistics.budgets import parse_budget
from dualsmooth.runtime.statistics.certification import check_looks, checked_terms
from dualsmooth.runtime.statistics.groups import Groups
from dualsmooth.runtime.statistics.norms import norm_named
from dualsmooth.runtime.statistics.rules.rule import Outcome, Terms
from dualsmooth.runtime.statistics.votes import Tally

FORMAT = "dualsmooth-certificate"
COUNTED_BY_GROUPS = ", of votes that are counted by groups"


@dataclass(frozen=True)
class Certificate:
    """With probability at least 1 - `alpha` over the noise: `subject`, a smoothed classifier, returns `label` for every
    input closer than `radius` in L2 (input units: those of the network's input, after any preprocessing of pictures).
    Where `abstained`, `label` is None and `radius` 0.

    Where groups were asked for and the class is in doubt, the same holds of `group` in place of `label`, which is None:
    the classifier whose votes are counted by groups (docs/groups.md). Where a set of at most m classes was asked for,
    the label is one of `answer`.

    Rules and routes certify different classifiers: one sigma, the cascade, and the dual classifier by each route may
    give an input different labels, each of them rightly certified. `drawn`: the terms that the votes were drawn for,
    where the certificate was recomputed under others. `derived`: where the votes are another artefact's, how far the
    certified one agrees with it. `classes`, the bundle's, `picture`, uint8 [C,H,W], and `shape` of the image are for
    people; the certificate does not rest on them, and none is in its JSON.
    """

    outcome: Outcome
    terms: Terms
    tally: Tally
    seed: Seed
    artefact: Artefact
    version: str
    drawn: Terms | None = None
    derived: Derivation | None = None
    classes: tuple[str, ...] = field(default=(), compare=False)
    picture: Picture | None = field(default=None, compare=False)
    shape: tuple[int, ...] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        words = label_words(self.answer, self.classes, self.group)
        radius = "" if self.abstained else f", radius {shown(self.radius, 4)}"
        marks = f"{', fixed seed' if self.seed.fixed else ''}{', recomputed' if self.drawn else ''}"
        marks += ", derived" if self.derived else ""
        return (
            f"<Certificate: {words}{radius}, sigma {self.sigma:g}, {self.passes} passes, "
            f"confidence {confidence(self.alpha)}{marks}>"
        )

    def _repr_html_(self) -> str:
        return self.show().html

    def show(self, image: npt.ArrayLike | None = None) -> View:
        """The certificate to look at, in a notebook or as text: label, radius, the bars of its levels, and the picture.

        The picture is that of `certify`, which keeps it; other certificates hold only the hash of theirs, and `image`
        [C,H,W] may be given. Raises `InputError`, and `CertificateError` where it is another image.
        """
        picture = self.picture
        if image is not None:
            how = self.artefact.preprocessing
            pixels = checked_image(image, np.shape(image) if how is None else how.shape, how)
            if image_sha256(pixels) != self.artefact.image_sha256:
                raise CertificateError("the image is not the one that the certificate is about")
            picture = eight_bits(pixels)
        classes, notes = self.classes, [*filter(None, [self.artefact.about]), *self.caveats()]
        return view(self.outcome, self.terms, self.passes, classes=classes, picture=picture, notes=notes)

    @property
    def label(self) -> int | None:
        return self.outcome.label

    @property
    def group(self) -> str | None:
        """The name of the group that was certified in place of a class."""
        asked = self.outcome.asked
        return asked.name or None if asked is not None and self.radius > 0 else None

    @property
    def answer(self) -> tuple[int, ...]:
        """The classes that the answer stands for: one of a label, those of a group or set, none on abstention."""
        return self.outcome.answer

    @property
    def radius(self) -> float:
        """Certified L2 radius, rounded down to 1e-6."""
        return self.outcome.radius

    @property
    def class_name(self) -> str | None:
        """The name of the label's class; None where abstained, and where no names are known: in what is read from
        JSON, which has none."""
        return class_name(self.label, self.classes)

    def radius_in(self, norm: str, shape: tuple[int, ...] | None = None) -> float:
        """The certified radius in the norm `l1`, `l2` or `linf`, as it follows from the L2 one, rounded down: within it
        the label stays, with the same confidence. `shape` of the image is needed for certificates that were read from a
        file. What such radii are worth: docs/norms.md. Raises `InputError`."""
        known = shape or self.shape
        return norm_named(norm).radius(self.radius, None if known is None else math.prod(known))

    def correct_radius(self, truth: int) -> float:
        """The certified radius where the label is `truth`; -1 where it is wrong or abstained."""
        return self.outcome.correct_radius(truth)

    def covered_radius(self, truth: int) -> float:
        """The certified radius where the answer, label or group, holds the class `truth`; -1 where it does not."""
        return self.outcome.covered_radius(truth)

    @property
    def sigma(self) -> float:
        """The guessed route's noise level."""
        return self.terms.sigmas[self.outcome.route]

    @property
    def abstained(self) -> bool:
        return not self.outcome.answer

    @property
    def subject(self) -> str:
        """The smoothed classifier that keeps its label, in words."""
        asked = self.outcome.asked
        return self.terms.subject + (COUNTED_BY_GROUPS if asked is not None and asked.name else "")

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
        """Forward passes of both stages, selection included, and paired ones of both networks."""
        return self.tally.total() + (self.derived.cost if self.derived else 0)

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
        if self.derived is not None:
            found.extend(self.derived.caveats())
        if self.drawn is not None:
            found.append(
                f"recomputed: its votes were drawn for {terms_words(self.drawn)}, and seen before its terms were chosen"
            )
        return tuple(found)

    def recompute(
        self,
        *,
        alpha: float | None = None,
        rule: str | None = None,
        route: str | None = None,
        groups: Groups | bool = True,
        at_most: int | None = None,
    ) -> Certificate:
        """The certificate that the same votes prove under another alpha, rule or route, or other `groups` (True: its
        own, if any; False: none), or for sets of `at_most` classes, without new passes.

        Each result holds at its own alpha; choosing among several after seeing them is not covered, so it says what it
        was drawn for. Certificates of version 1 get the shares of version 2. Raises `CertificateError` where the other
        rule needs votes that were not drawn.
        """
        old, own = self.terms, self.terms.at_most if groups is True else 1
        terms = checked_terms(
            old.sigmas,
            old.sigma_e,
            old.classes,
            alpha=old.alpha if alpha is None else alpha,
            rule=rule or str(old.rule),
            route=route or (None if rule else old.route_kind),
            budget=parse_budget(str(old.budget)),
            groups=(old.groups if groups else None) if isinstance(groups, bool) else groups,
            at_most=own if at_most is None else at_most,
            sure=old.sure,
        )
        outcome = settled(terms, self.tally, self.derived)
        return replace(self, outcome=outcome, terms=terms, drawn=None if terms == self.drawn_for else self.drawn_for)

    @property
    def drawn_for(self) -> Terms:
        """The terms that its votes were drawn for: its own, unless it was recomputed."""
        return self.drawn or self.terms

    @property
    def voted(self) -> Artefact:
        """Whose votes they are: those of `artefact`, unless the certificate is derived."""
        return self.artefact if self.derived is None else self.derived.old

    @property
    def drawn_seed(self) -> Seed:
        """The seed as its streams are keyed: bound to image, manifest and the terms that the votes were drawn for."""
        if self.drawn_for.edition == 1:
            return self.seed
        return bound(self.seed, self.voted.image_sha256, self.voted.manifest_sha256, self.drawn_for.words())

    def to_dict(self) -> dict[str, Any]:
        outcome, terms = self.outcome, self.terms
        drawn = None if self.drawn is None else {"version": self.drawn.edition, **self.drawn.to_dict()}
        later: dict[str, Any] = {} if terms.edition == 1 else {"subject": self.subject, "recomputed_from": drawn}
        if self.derived is not None:
            later["derived"] = self.derived.to_dict()
        if terms.coarser:
            later |= {"group": self.group, "answer": list(self.answer)}
        return {
            "format": FORMAT,
            "version": terms.edition,
            "label": outcome.label,
            "radius": outcome.radius,
            "sigma": self.sigma,
            "abstained": self.abstained,
            "alpha": terms.alpha,
            "route_radius": finite(outcome.route_radius),
            "class_radius": outcome.class_radius,
            "passes": self.passes,
            "route": outcome.route,
            "guess": outcome.guess,
            "exclusion": [finite(e) for e in outcome.exclusion],
            "class_radii": list(outcome.class_radii),
            "terms": {
                "rule": str(terms.rule),
                "route": terms.route_kind,
                "budget": str(terms.budget),
                "sigmas": list(terms.sigmas),
                "sigma_e": terms.sigma_e,
                "classes": terms.classes,
                **({"sure": list(terms.sure)} if terms.sure else {}),
                **terms.coarser_dict(),
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
        if not isinstance(data, Mapping) or data.get("format") != FORMAT or data.get("version") not in VERSIONS:
            raise CertificateError(
                f"not a certificate; expected a JSON object with format {FORMAT!r}, version {VERSIONS[-1]} (or 1)"
            )
        try:
            terms = stated_terms(data)
            tally = Tally.from_dict(data["votes"], classes=terms.classes, levels=len(terms.sigmas))
            check_looks(terms, tally)
            artefact, seed = Artefact.from_dict(data["artefact"]), Seed.from_dict(data["seed"])
            drawn = drawn_terms(terms, data.get("recomputed_from"))
            derived = None
            if "derived" in data:
                derived = Derivation.from_dict(data["derived"], terms, artefact, seed.noise)
            outcome = settled(terms, tally, derived)
            made = cls(outcome, terms, tally, seed, artefact, str(data["dualsmooth"]), drawn, derived)
            fresh = made.to_dict()
        except InputError as error:
            raise CertificateError(f"certificate terms are not usable: {error}") from error
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CertificateError(
                f"certificate is incomplete or damaged ({type(error).__name__}: {str(error)[:80]})"
            ) from error
        require_same(data, fresh)
        return made

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """Inverse of `to_json`; raises `CertificateError`."""
        try:
            data = strict_json.loads(text)
        except ValueError as error:
            raise CertificateError(f"certificate is not JSON ({str(error)[:80]})") from error
        return cls.from_dict(data)
