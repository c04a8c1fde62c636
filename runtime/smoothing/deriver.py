"""Derive certificates of a changed bundle from those of the old one (docs/mathematics.md, theorem 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.datasets.single_images import ImageLike
from dualsmooth.runtime.engine.paired import PairedEngine, paired_bundle
from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.noise.streams import DEFAULT_NOISE, Seed
from dualsmooth.runtime.smoothing.artefact import image_sha256
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.checking import looks_of, replay_job, require_replayed
from dualsmooth.runtime.smoothing.derivation import Derivation, paired_seed
from dualsmooth.runtime.smoothing.sampler import Job, Sampler
from dualsmooth.runtime.smoothing.seeds import Seeds
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.statistics.budgets import parse_budget
from dualsmooth.runtime.statistics.budgets.budget import require_count
from dualsmooth.runtime.statistics.certification import checked_terms
from dualsmooth.runtime.statistics.deriving import (
    Pairs,
    pairing,
    require_derivable,
    require_few,
    settle_derived,
    worth_pairing,
)
from dualsmooth.runtime.statistics.rules.rule import Terms

PASSES = 1_000
"""Paired passes of each stream that the radius needs, unless asked otherwise."""


class Deriver:
    """Both bundles, open: `old` as it was certified, and `new`, whose certificates are wanted."""

    def __init__(self, old: Smoother, new: Smoother) -> None:
        """Raises `InputError` where the two have other levels, classes or inputs, or too many classes."""
        self.old, self.new = old, new
        self._bundle, self._engine = paired_bundle(old.bundle, new.bundle), PairedEngine(old.engine, new.engine)
        require_few(max(len(new.bundle.classes), len(new.bundle.sigmas)))

    def derive(
        self, certificate: Certificate, image: ImageLike, *, passes: int = PASSES, seed: int | None = None
    ) -> Certificate:
        """With probability at least 1 - alpha, `certificate.alpha`, the *new* dual classifier returns the label within
        the radius, provided that the new networks were made without a look at the old certificate's votes.

        `passes`: of each network, for each stream that the radius needs. `seed`: of the paired passes, from the
        operating system unless given. Raises `InputError`, `CertificateError`, `EngineError`.
        """
        return next(self.derive_many([(certificate, image)], passes=passes, seed=seed))

    def derive_many(
        self,
        items: Iterable[tuple[Certificate, ImageLike]],
        *,
        passes: int = PASSES,
        seed: int | Seed | None = None,
    ) -> Iterator[Certificate]:
        """`derive` for a stream of certificates and their images, in order, in constant memory."""
        require_count("passes", passes)
        seeds = Seeds(seed, DEFAULT_NOISE)
        begun: list[tuple[Certificate, Terms, Seed]] = []

        def jobs() -> Iterator[Job]:
            for certificate, image in items:
                terms, own = self._terms(certificate), seeds.at(certificate.seed.index)
                own = replace(own, noise=replace(certificate.seed.noise, shared=False))
                begun.append((certificate, terms, own))
                streams = worth_pairing(terms, certificate.tally, passes)
                pairs = Pairs(terms.classes, len(terms.sigmas))
                pixels = self._pixels(certificate, image)
                new = self.new.artefact(pixels)
                key = paired_seed(own, certificate.artefact, new, certificate.drawn_for, passes)
                yield Job(pixels, key, pairs, pairing(streams, passes))

        for job in Sampler(self._bundle, self._engine, batch_size=self.new.batch_size).run(jobs()):
            certificate, terms, own = begun.pop(0)
            assert isinstance(job.tally, Pairs)
            ran = self.old.engine.provider, self.old.engine.name
            yield self._derived(certificate, terms, Derivation(certificate.artefact, ran, passes, job.tally, own), job)

    def verify(self, certificate: Certificate) -> None:
        """Check that a derived certificate is about both bundles' files. Raises `CertificateError`."""
        self.new.verify(certificate)
        self.old.verify(replace(certificate, artefact=certificate.voted))

    def replay(self, certificate: Certificate, image: ImageLike) -> None:
        """Draw the old votes and the paired ones again. Raises `CertificateError` unless all counts are the same."""
        if certificate.derived is None:
            raise CertificateError("it is not derived; replay it with its own bundle, without --old")
        self.verify(certificate)
        pixels, stated = self._pixels(certificate, image), certificate.derived.pairs
        votes = replay_job(certificate, pixels)
        next(Sampler(self.old.bundle, self.old.engine, batch_size=self.old.batch_size).run([votes]))
        require_replayed(certificate, votes.tally, self.old.artefact(pixels))
        key = certificate.derived.drawn_seed(certificate.artefact, certificate.drawn_for)
        pairs = Pairs(stated.classes, stated.levels)
        job = Job(pixels, key, pairs, looks_of(stated))
        next(Sampler(self._bundle, self._engine, batch_size=self.new.batch_size).run([job]))
        if pairs.to_dict() != stated.to_dict():
            raise CertificateError(
                f"replay on {self.old.engine.name} and {self.new.engine.name} drew other pairs than the certificate "
                f"states, which names {certificate.voted.engine} and {certificate.artefact.engine}"
            )

    def _terms(self, certificate: Certificate) -> Terms:
        """The terms of what is derived, by the shares of version 2. Raises `InputError`, `CertificateError`."""
        if certificate.derived is not None:
            raise InputError("the certificate is derived already; derive from the one whose votes it rests on")
        self.old.verify(certificate)
        old = certificate.terms
        terms = checked_terms(
            old.sigmas, old.sigma_e, old.classes, alpha=old.alpha, rule=str(old.rule), route=old.route_kind,
            budget=parse_budget(str(old.budget)), sure=old.sure,
        )  # fmt: skip
        require_derivable(terms)
        return terms

    def _pixels(self, certificate: Certificate, image: ImageLike) -> npt.NDArray[np.float32]:
        pixels = self.new.check_image(image, certificate.seed.noise)
        if image_sha256(pixels) != certificate.artefact.image_sha256:
            raise InputError("the image is not the one that the certificate is about; pass the same data set")
        return pixels

    def _derived(self, certificate: Certificate, terms: Terms, derivation: Derivation, job: Job) -> Certificate:
        return Certificate(
            settle_derived(terms, certificate.tally, derivation.pairs),
            terms,
            certificate.tally,
            certificate.seed,
            self.new.artefact(job.image),
            version("dualsmooth"),
            None if certificate.drawn_for == terms else certificate.drawn_for,
            derivation,
            classes=self.new.bundle.classes,
        )
