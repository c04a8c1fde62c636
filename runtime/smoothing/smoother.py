"""The public entry: load a bundle, certify images, predict labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import Bundle, read_bundle
from dualsmooth.runtime.datasets.single_images import checked_image
from dualsmooth.runtime.engine.engine import Engine
from dualsmooth.runtime.engine.opening import check_batch_size, open_engine
from dualsmooth.runtime.engine.providers import provider_of
from dualsmooth.runtime.errors import BundleError, CertificateError, InputError
from dualsmooth.runtime.noise.streams import LATTICE, Noise, Seed, require_lattice
from dualsmooth.runtime.smoothing.certificate import Artefact, Certificate, Prediction, bound
from dualsmooth.runtime.smoothing.sampler import Job, Sampler
from dualsmooth.runtime.statistics.budgets import Budget, Fixed
from dualsmooth.runtime.statistics.certification import Requests, Terms, certification, settle
from dualsmooth.runtime.statistics.foresight import require_possible, require_possible_prediction
from dualsmooth.runtime.statistics.prediction import predicted, prediction
from dualsmooth.runtime.statistics.rules.plan import PREDICTING
from dualsmooth.runtime.statistics.votes import Request, Tally

T = TypeVar("T")


def load(
    path: str | Path,
    provider: str = "cpu",
    *,
    threads: int = 0,
    batch_size: int | str = 256,
    provider_options: Mapping[str, Any] | None = None,
) -> Smoother:
    """Read and check the bundle at `path`, and open its networks on `provider`.

    `threads`: of the engine; 0: the cores of this process.
    `provider`: `cpu`, `cuda`, `tensorrt` or `openvino`; `provider_options`: those of its class in
    `runtime/engine/providers/`, e.g. `{"arena": False}`.
    `batch_size`: passes in one call of the engine; `auto`: measured once on this machine and remembered.
    Raises `BundleError`, `ProviderError` or `InputError`.
    """
    on = provider_of(provider, provider_options)
    check_batch_size(batch_size)
    bundle = read_bundle(path)
    engine, size = open_engine(bundle, on, threads=threads, batch_size=batch_size)
    return Smoother(bundle, engine, batch_size=size)


class Smoother:
    """The dual smoothed classifier of one bundle on one engine.

    Threads may share it, and forked children may go on with it. A pickle holds the bundle's path and the options: a
    copy opens the bundle again, and must find the same manifest. Close it, or use it in `with`, to let go of it early.
    """

    def __init__(self, bundle: Bundle, engine: Engine, *, batch_size: int = 256) -> None:
        self.bundle, self.engine, self.batch_size = bundle, engine, batch_size

    def close(self) -> None:
        """Let go of the networks and threads; certifying raises `EngineError` from then on. Twice does no harm."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """The arguments of `load`, and the manifest's hash: open networks never travel. Raises `InputError`."""
        found = {"batch_size": self.batch_size, "manifest_sha256": self.bundle.manifest_sha256}
        return self.engine.settings() | found

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the bundle again. Raises `BundleError` where it is not the same one any more, and as `load` does."""
        state = dict(state)
        digest = state.pop("manifest_sha256")
        self._take_over(load(**state), digest)

    def _take_over(self, opened: Smoother, digest: str) -> None:
        """Become what was opened in this object's place. Raises `BundleError` where its manifest is another."""
        if opened.bundle.manifest_sha256 != digest:
            where = opened.bundle.path
            opened.close()
            raise BundleError(
                f"{where} holds another bundle than when the smoother was pickled; load it again and pickle that"
            )
        self.__dict__.update(opened.__dict__)

    def certify(
        self,
        image: npt.ArrayLike,
        *,
        alpha: float = 1e-3,
        budget: Budget | None = None,
        rule: str = "interval",
        route: str | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
    ) -> Certificate:
        """With probability at least 1 - alpha, the dual classifier is constant within the returned radius (L2).

        `image`: float32 in [0, 1] or uint8, [C,H,W]. `budget`: `Fixed(10_000)` by default. `rule`: `interval`
        (DESIGN 3.3), `paper` (Sun et al. 2026), `multiscale`, or `single:SIGMA` (Cohen et al. 2019). `route`:
        `median` or `mode`. `seed`: from the operating system unless given. `noise`: float32 normals by SFC64 unless
        given. Raises `InputError`, `EngineError`.
        """
        terms: dict[str, Any] = {"alpha": alpha, "budget": budget, "rule": rule, "route": route}
        return next(self.certify_many([image], seed=seed, noise=noise, **terms))

    def certify_many(
        self,
        images: Iterable[npt.ArrayLike],
        *,
        alpha: float = 1e-3,
        budget: Budget | None = None,
        rule: str = "interval",
        route: str | None = None,
        seed: int | Seed | None = None,
        noise: Noise | None = None,
        indices: Iterable[int] | None = None,
        all_levels: bool = False,
        in_flight: int = 16,
    ) -> Iterator[Certificate]:
        """Certificates of a stream of images, in order, each with its own 1 - alpha, in constant memory.

        Each image has entropy of its own, drawn when its turn comes, and noise that is keyed by that, its pixels, the
        bundle and the terms: nothing that was published before could have chosen it. `indices` number the images (0, 1,
        2, … by default; each once): with a fixed seed, or with a `Seed` that was kept, the same image at the same index
        draws the same noise in any run. `all_levels` samples every level in full, so that rules can be compared
        offline. Arguments and errors otherwise as for `certify`.
        """
        if in_flight < 1:
            raise InputError(f"in_flight is {in_flight}; expected at least 1")
        terms = self.terms(alpha=alpha, budget=budget, rule=rule, route=route)
        seeds = Seeds(seed, noise)

        def jobs() -> Iterator[Job]:
            for image, index in numbered(images, indices):
                yield self.job(image, terms, seeds.at(index), all_levels=all_levels)

        sampler = Sampler(
            self.bundle,
            self.engine,
            batch_size=self.batch_size,
            in_flight=in_flight,
            fair=seeds.noise.shared,  # so that images pass through the shared noise side by side
        )
        for job in sampler.run(jobs()):
            yield self.certificate(terms, job)

    def predict(
        self,
        image: npt.ArrayLike,
        *,
        alpha: float = 1e-3,
        n: int = 1_000,
        rule: str = "interval",
        route: str | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
    ) -> Prediction:
        """With probability at least 1 - alpha, abstains or returns the dual classifier's label at the input.

        `n` passes a stage and level, no radius (Cohen et al. 2019, PREDICT, for both stages). `rule`: `interval` or
        `paper`; it decides only which route is the default. `route`: as for `certify`. Raises `InputError`,
        `EngineError`.
        """
        job, terms = self.prediction_job(image, alpha=alpha, n=n, rule=rule, route=route, seed=Seeds(seed, noise).at(0))
        next(Sampler(self.bundle, self.engine, batch_size=self.batch_size).run([job]))
        return self.prediction(job, terms)

    def job(self, image: npt.ArrayLike, terms: Terms, seed: Seed, *, all_levels: bool = False) -> Job:
        """The work of one certificate. Raises `InputError`."""
        pixels, tally = self.check_image(image, seed.noise), terms.tally()
        bound_seed = bound(seed, image_sha256(pixels), self.bundle.manifest_sha256, terms.words())
        return Job(pixels, bound_seed, tally, certification(terms, tally, all_levels=all_levels))

    def certificate(self, terms: Terms, job: Job) -> Certificate:
        """What the votes that a job has so far prove. Raises `CertificateError` where the rule needs more."""
        artefact, seed = self.artefact(job.image), replace(job.seed, binding=b"")
        return Certificate(settle(terms, job.tally), terms, job.tally, seed, artefact, version("dualsmooth"))

    def prediction_job(
        self, image: npt.ArrayLike, *, alpha: float, n: int, rule: str, route: str | None, seed: Seed
    ) -> tuple[Job, Terms]:
        """The work of one prediction, and its terms. Raises `InputError`."""
        terms = self.prediction_terms(alpha=alpha, n=n, rule=rule, route=route)
        pixels, tally = self.check_image(image, seed.noise), terms.tally()
        process = prediction(tally, levels=len(terms.sigmas), alpha=terms.alpha, n=n, route=terms.route_kind)
        bound_seed = bound(seed, image_sha256(pixels), self.bundle.manifest_sha256, f"predict {terms.words()}")
        return Job(pixels, bound_seed, tally, process), terms

    def prediction(self, job: Job, terms: Terms) -> Prediction:
        """What the votes of a finished prediction say."""
        levels = len(terms.sigmas)
        label, kept = predicted(job.tally, levels=levels, alpha=terms.alpha, route=terms.route_kind)
        sigmas = tuple(terms.sigmas[level] for level in kept)
        return Prediction(
            label=label,
            sigma=sigmas[0] if sigmas else 0.0,
            levels=sigmas,
            alpha=terms.alpha,
            route=terms.route_kind,
            passes=job.tally.total(),
            seed=replace(job.seed, binding=b""),
            manifest_sha256=self.bundle.manifest_sha256,
            image_sha256=image_sha256(job.image),
        )

    def verify(self, certificate: Certificate) -> None:
        """Check that a certificate is about this bundle's files. Raises `CertificateError`."""
        stated = certificate.artefact
        if stated.manifest_sha256 != self.bundle.manifest_sha256 or dict(stated.files) != dict(self.bundle.files):
            raise CertificateError(f"the certificate is about other files than the bundle {self.bundle.path}")
        b, terms = self.bundle, certificate.terms
        if stated.precision != b.precision:
            raise CertificateError(
                f"the certificate states precision {stated.precision[:20]!r}; the bundle {b.path} is in {b.precision}"
            )
        if (terms.sigmas, terms.sigma_e, terms.classes) != (b.sigmas, b.sigma_e, len(b.classes)):
            raise CertificateError(f"the certificate states other noise levels or classes than the bundle {b.path}")

    def replay(self, certificate: Certificate, image: npt.ArrayLike) -> None:
        """Draw a certificate's votes again from its seed; raises `CertificateError` unless all counts are the same.

        Exact on the same provider and engine version; elsewhere a rounding difference may move single votes.
        """
        self.verify(certificate)
        pixels = self.check_image(image, certificate.seed.noise)
        if image_sha256(pixels) != certificate.artefact.image_sha256:
            raise CertificateError("the image is not the one that the certificate is about")
        tally = certificate.terms.tally()
        stated = certificate.tally
        process = _replaying(stated)
        next(
            Sampler(self.bundle, self.engine, batch_size=self.batch_size).run(
                [Job(pixels, certificate.drawn_seed, tally, process)]
            )
        )
        if tally.to_dict() != stated.to_dict():
            issuer, here = certificate.artefact, (self.engine.provider, self.engine.name)
            why = f": it was issued on {issuer.provider}, {issuer.engine}, whose kernels round otherwise; replay there"
            why = "" if (issuer.provider, issuer.engine) == here else why
            raise CertificateError(f"replay on {', '.join(here)} drew other votes than the certificate states{why}")

    def terms(self, *, alpha: float, budget: Budget | None, rule: str, route: str | None) -> Terms:
        """Checked terms of a certificate under this bundle. Raises `InputError`, also where no votes could satisfy
        them."""
        terms = self._terms(alpha=alpha, budget=Fixed(10_000) if budget is None else budget, rule=rule, route=route)
        require_possible(terms)
        return terms

    def prediction_terms(self, *, alpha: float, n: int, rule: str, route: str | None) -> Terms:
        """Checked terms of a prediction. Raises `InputError`, also where n passes could only abstain."""
        terms = self._terms(alpha=alpha, budget=Fixed(n), rule=rule, route=route)
        if rule not in ("interval", "paper"):
            raise InputError(f"rule {rule!r} does not predict; expected {PREDICTING}")
        require_possible_prediction(terms, n)
        return terms

    def _terms(self, *, alpha: float, budget: Budget, rule: str, route: str | None) -> Terms:
        b = self.bundle
        return Terms.checked(b.sigmas, b.sigma_e, len(b.classes), alpha=alpha, rule=rule, route=route, budget=budget)

    def check_image(self, image: npt.ArrayLike, noise: Noise | None = None) -> npt.NDArray[np.float32]:
        """float32 [C,H,W] in [0, 1] from float32 or uint8, on the lattice if `noise` is; raises `InputError`."""
        pixels = checked_image(image, self.bundle.input_shape)
        if noise is not None and noise.mode == LATTICE:
            require_lattice(pixels)
        return pixels

    def artefact(self, pixels: npt.NDArray[np.float32]) -> Artefact:
        b = self.bundle
        engine = self.engine
        return Artefact(b.manifest_sha256, b.files, b.precision, engine.provider, engine.name, image_sha256(pixels))


class Seeds:
    """The seeds of the images of one call: of one fixed entropy, of a run's `Seed`, or (the default) each drawn afresh
    when its turn comes. Raises `InputError` where this machine cannot make such noise."""

    def __init__(self, seed: int | Seed | None, noise: Noise | None) -> None:
        fresh = seed is None and not getattr(noise, "shared", False)
        base = seed if isinstance(seed, Seed) else Seed.make(0 if fresh else seed, noise)
        base.require_generator()
        self.noise, self._base = base.noise, None if fresh else base

    def at(self, index: int) -> Seed:
        return (self._base or Seed.make(None, self.noise)).at(index)


def numbered(images: Iterable[T], indices: Iterable[int] | None) -> Iterator[tuple[T, int]]:
    """Each image with its index: 0, 1, 2, … unless given. Raises `InputError` where the indices run out first, or one
    comes twice: two certificates would share their noise."""
    if indices is None:
        yield from zip(images, count())
        return
    numbers, used = iter(indices), set[int]()
    for image in images:
        index = next(numbers, None)
        if index is None:
            raise InputError("there are fewer indices than images; expected one for each")
        if index in used:
            raise InputError(
                f"index {index} is given twice; expected another one for each image, with noise of its own"
            )
        used.add(index)
        yield image, index


def _replaying(stated: Tally) -> Requests:
    """Ask for exactly the looks that another tally holds."""
    for stream, looks in stated.looks.items():
        for look in looks:
            yield [Request(stream, int(look.sum()))]


def image_sha256(pixels: npt.NDArray[np.float32]) -> str:
    """SHA-256 of an image [C,H,W] as little-endian float32."""
    return hashlib.sha256(pixels.astype("<f4").tobytes()).hexdigest()
