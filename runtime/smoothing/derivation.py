"""What a derived certificate says beyond its votes: whose they are, and how far the new networks agree with the old."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dualsmooth.runtime.errors import CertificateError
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.smoothing.artefact import Artefact, bound
from dualsmooth.runtime.statistics.certification import settle
from dualsmooth.runtime.statistics.deriving import Pairs, require_derivable, settle_derived
from dualsmooth.runtime.statistics.rules.rule import Outcome, Terms
from dualsmooth.runtime.statistics.votes import Tally

FIELDS = {"old", "ran", "passes", "pairs", "seed"}


@dataclass(frozen=True)
class Derivation:
    """`old`: the artefact that the votes are about. `ran`: provider and engine that ran its files for the `pairs`:
    votes of both on the same noisy copies, `passes` of each stream that has any, from noise of their own (`seed`)."""

    old: Artefact
    ran: tuple[str, str]
    passes: int
    pairs: Pairs
    seed: Seed

    @property
    def cost(self) -> int:
        """Forward passes of both networks."""
        return 2 * self.pairs.total()

    def caveats(self) -> tuple[str, ...]:
        """Why this convinces fewer readers than a certificate of votes of the network's own would."""
        found = [
            "derived: the votes are another network's, and seen before this one was named; that it was made without a "
            "look at them is the issuer's word"
        ]
        if self.ran != (self.old.provider, self.old.engine):
            found.append(
                f"its paired passes ran the old files on {', '.join(self.ran)}, its votes were drawn on "
                f"{self.old.provider}, {self.old.engine}: that these round alike is taken for granted"
            )
        if self.seed.fixed:
            found.append("the seed of its paired passes was chosen by a person, who may have tried several")
        return tuple(found)

    def drawn_seed(self, new: Artefact, drawn: Terms) -> Seed:
        """The seed as the streams of the pairs are keyed: bound to the image, both manifests, the number of passes, and
        the terms that the old votes were drawn for."""
        return paired_seed(self.seed, self.old, new, drawn, self.passes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "old": self.old.to_dict(),
            "ran": {"provider": self.ran[0], "engine": self.ran[1]},
            "passes": self.passes,
            "pairs": self.pairs.to_dict(),
            "seed": self.seed.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Any, terms: Terms, artefact: Artefact, noise: Noise) -> Derivation:
        """Inverse of `to_dict`, for a certificate of these terms about `artefact`, whose votes were drawn with `noise`.
        Raises `CertificateError`, `InputError`."""
        if not isinstance(data, Mapping) or set(data) != FIELDS:
            raise CertificateError(f"derived must hold {', '.join(sorted(FIELDS))}")
        require_derivable(terms)
        old, passes, ran = Artefact.from_dict(data["old"]), data["passes"], data["ran"]
        if not isinstance(ran, Mapping) or not all(isinstance(ran.get(name), str) for name in ("provider", "engine")):
            raise CertificateError("derived.ran must hold provider and engine, both of them texts")
        pairs = Pairs.from_dict(data["pairs"], classes=terms.classes, levels=len(terms.sigmas))
        if old.image_sha256 != artefact.image_sha256:
            raise CertificateError("derived.old is about another image")
        if type(passes) is not int or passes < 1 or any(pairs.passes(stream) != passes for stream in pairs.looks):
            raise CertificateError(f"derived.passes is {str(passes)[:20]}; expected as many pairs in each stream")
        seed = Seed.from_dict(data["seed"])
        if seed.noise != replace(noise, shared=False):
            raise CertificateError(f"derived.seed has noise {seed.noise}; expected that of the votes, not shared")
        return cls(old, (ran["provider"], ran["engine"]), passes, pairs, seed)


def paired_seed(seed: Seed, old: Artefact, new: Artefact, drawn: Terms, passes: int) -> Seed:
    """A seed for these paired passes alone."""
    manifests = f"{old.manifest_sha256} {new.manifest_sha256}"
    return bound(seed, old.image_sha256, manifests, f"derive {passes} {drawn.words()}")


def settled(terms: Terms, tally: Tally, derived: Derivation | None) -> Outcome:
    """What votes prove: those of the network itself, or of another one, from which it is derived."""
    return settle(terms, tally) if derived is None else settle_derived(terms, tally, derived.pairs)
