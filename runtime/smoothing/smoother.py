"""The public entry: load a bundle, certify images, predict labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import Bundle, read_bundle
from dualsmooth.runtime.datasets.single_images import ImageLike, checked_image, several
from dualsmooth.runtime.engine.engine import Engine
from dualsmooth.runtime.engine.opening import check_batch_size, open_engine
from dualsmooth.runtime.engine.providers import provider_of
from dualsmooth.runtime.errors import BundleError, CertificateError, InputError
from dualsmooth.runtime.noise.add import require_lattice
from dualsmooth.runtime.noise.streams import Noise, Seed
from dualsmooth.runtime.smoothing.artefact import Artefact, bound, image_sha256
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.checking import replay_job, require_bundle, require_image, require_replayed
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.smoothing.prediction import Prediction
from dualsmooth.runtime.smoothing.sampler import IN_FLIGHT, Job, Sampler
from dualsmooth.runtime.smoothing.seeds import numbered
from dualsmooth.runtime.smoothing.settings import ALPHA, PREDICTION_PASSES, RULE, GroupsGiven, Settings
from dualsmooth.runtime.smoothing.view import eight_bits
from dualsmooth.runtime.statistics.budgets import Budget, Fixed
from dualsmooth.runtime.statistics.certification import certification, settle
from dualsmooth.runtime.statistics.questions import prediction_requests
from dualsmooth.runtime.statistics.rules.rule import Terms


def load(
    path: str | Path,
    provider: str = "cpu",
    *,
    threads: int = 0,
    batch_size: int | str = 256,
    provider_options: Mapping[str, Any] | None = None,
) -> Smoother:
    """Read and check a bundle, and open its networks on `provider`.

    `path`: the bundle's folder, or the name of one that ships (`bundles`); a bundle in a folder of that name is nearer.
    `threads`: of the engine; 0: the cores of this process.
    `provider`: `cpu`, `cuda`, `tensorrt` or `openvino`; `provider_options`: those of its class in
    `runtime/engine/providers/`, e.g. `{"arena": False}`.
    `batch_size`: passes in one call of the engine; `auto`: measured once on this machine and remembered.
    Raises `BundleError`, `ProviderError` or `InputError`.

    >>> with load("fashion-mnist") as smoother:
    ...     smoother.bundle.classes[0]
    'T-shirt/top'
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

    def __repr__(self) -> str:
        engine = f"{self.engine.provider}, {self.engine.name}"
        return f"{repr(self.bundle).replace('Bundle', type(self).__name__, 1)[:-1]}, on {engine}>"

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
        image: ImageLike,
        *,
        alpha: float = ALPHA,
        budget: Budget | None = None,
        rule: str = RULE,
        route: str | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
        groups: GroupsGiven = False,
        at_most: int = 1,
        mode: str | None = None,
        r: float | None = None,
    ) -> Certificate:
        """With probability at least 1 - alpha, the dual classifier is constant within the returned radius (L2).

        `image`: an array or tensor [C,H,W] of float32 in [0, 1] or uint8, a picture of PIL's or a path (`check_image`).
        `budget`: `Fixed(10_000)` by default. `rule`: `interval` (docs/mathematics.md), `paper` (Sun et al. 2026),
        `multiscale`, `confidence:P`, `sure:P` or `fallback:P` (theorems 10, 11), or `single:SIGMA` (Cohen et al. 2019).
        `route`: `median`, `mode` or `quantile:Q`. `seed`: from the operating system unless given. `noise`: `auto` by
        SFC64 unless given: 8-bit images get it on their own lattice, others float32 normals. `groups`, `at_most`: where
        the class is in doubt, the bundle's groups (True) or your own may answer, or a set of so many classes
        (docs/groups.md). `mode` in place of a budget: `decide` (is it certified at `r`?), `quick`, `standard`,
        `thorough` (docs/modes.md). Raises `InputError`, `EngineError`.

        >>> import dualsmooth as ds
        >>> image = ds.sample("fashion-mnist")  # an ankle boot, uint8 [1,28,28]
        >>> certificate = ds.load("fashion-mnist").certify(image, budget=ds.Fixed(1_000), seed=1)
        >>> certificate.label, certificate.abstained, certificate.radius > 0.1
        (9, False, True)
        """
        settings = Settings.of(
            alpha=alpha, budget=budget, rule=rule, route=route, seed=seed, noise=noise, groups=groups, at_most=at_most,
            mode=mode, r=r,
        )  # fmt: skip
        pixels = self.check_image(image)
        certificate = next(self.certify_with([pixels], settings))
        return replace(certificate, picture=eight_bits(pixels))

    def certify_many(
        self,
        images: Iterable[ImageLike],
        *,
        alpha: float = ALPHA,
        budget: Budget | None = None,
        rule: str = RULE,
        route: str | None = None,
        seed: int | Seed | None = None,
        noise: Noise | None = None,
        groups: GroupsGiven = False,
        at_most: int = 1,
        mode: str | None = None,
        r: float | None = None,
        indices: Iterable[int] | None = None,
        all_levels: bool = False,
        in_flight: int = IN_FLIGHT,
    ) -> Iterator[Certificate]:
        """Certificates of a stream of images, in order, each with its own 1 - alpha, in constant memory.

        Each image has entropy of its own, drawn when its turn comes, and noise that is keyed by that, its pixels, the
        bundle and the terms: nothing that was published before could have chosen it. `indices` number the images (0, 1,
        2, … by default; each once): with a fixed seed, or with a `Seed` that was kept, the same image at the same index
        draws the same noise in any run. `all_levels` samples every level in full, so that rules can be compared
        offline. Arguments and errors otherwise as for `certify`.

        >>> import dualsmooth as ds
        >>> images, smoother = [ds.sample("fashion-mnist", index) for index in (0, 2)], ds.load("fashion-mnist")
        >>> [c.label for c in smoother.certify_many(images, budget=ds.Fixed(200), seed=1)]
        [9, 1]
        """
        asked = Settings.of(
            alpha=alpha, budget=budget, rule=rule, route=route, seed=seed, noise=noise, groups=groups, at_most=at_most,
            mode=mode, r=r, all_levels=all_levels,
        )  # fmt: skip
        return self.certify_with(several(images), asked, indices=indices, in_flight=in_flight)

    def certify_with(
        self,
        images: Iterable[ImageLike],
        settings: Settings,
        *,
        indices: Iterable[int] | None = None,
        in_flight: int = IN_FLIGHT,
        meter: Meter | None = None,
    ) -> Iterator[Certificate]:
        """`certify_many`, with all that is asked of an image in one piece. `meter` counts passes and seconds."""
        meter = meter or Meter()
        if in_flight < 1:
            raise InputError(f"in_flight is {in_flight}; expected at least 1")
        terms, seeds = settings.terms(self.bundle), settings.seeds()

        def jobs() -> Iterator[Job]:
            for image, index in numbered(images, indices):
                yield self.job(image, terms, seeds.at(index), all_levels=settings.all_levels)

        sampler = Sampler(
            self.bundle,
            self.engine,
            batch_size=self.batch_size,
            in_flight=in_flight,
            fair=seeds.noise.shared,  # so that images pass through the shared noise side by side
        )
        for job in sampler.run(jobs(), meter):
            meter.last = job.seconds
            yield self.certificate(terms, job)

    def predict(
        self,
        image: ImageLike,
        *,
        alpha: float = ALPHA,
        n: int = PREDICTION_PASSES,
        rule: str = RULE,
        route: str | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
        groups: GroupsGiven = False,
        at_most: int = 1,
    ) -> Prediction:
        """With probability at least 1 - alpha, abstains or returns the dual classifier's label at the input.

        `n` passes a stage and level, no radius (Cohen et al. 2019, PREDICT, for both stages). `rule`: `interval` or
        `paper`; it decides only which route is the default. `route`, `groups`, `at_most`: as for `certify`. Raises
        `InputError`, `EngineError`.

        >>> import dualsmooth as ds
        >>> ds.load("fashion-mnist").predict(ds.sample("fashion-mnist"), n=1000, seed=1).label
        9
        """
        return self.predict_with(image, Settings(alpha, Fixed(n), rule, route, seed, noise, False, groups, at_most))

    def predict_with(self, image: ImageLike, settings: Settings) -> Prediction:
        """`predict`, with all that is asked in one piece; the budget is a `Fixed(n)`."""
        job, terms = self.prediction_job(image, settings, settings.seeds().at(0))
        next(Sampler(self.bundle, self.engine, batch_size=self.batch_size).run([job]))
        return self.prediction(job, terms)

    def job(self, image: ImageLike, terms: Terms, seed: Seed, *, all_levels: bool = False) -> Job:
        """The work of one certificate. Raises `InputError`."""
        pixels, tally = self.check_image(image, seed.noise), terms.tally()
        seed = self.suited(seed, pixels)
        bound_seed = bound(seed, image_sha256(pixels), self.bundle.manifest_sha256, terms.words())
        return Job(pixels, bound_seed, tally, certification(terms, tally, all_levels=all_levels))

    def certificate(self, terms: Terms, job: Job) -> Certificate:
        """What the votes that a job has so far prove. Raises `CertificateError` where the rule needs more."""
        artefact, seed = self.artefact(job.image), replace(job.seed, binding=b"")
        made = Certificate(settle(terms, job.tally), terms, job.tally, seed, artefact, _version())
        return replace(made, classes=self.bundle.classes, shape=self.bundle.input_shape)

    def prediction_job(self, image: ImageLike, settings: Settings, seed: Seed) -> tuple[Job, Terms]:
        """The work of one prediction, and its terms. Raises `InputError`."""
        terms = settings.prediction_terms(self.bundle)
        pixels, tally, n = self.check_image(image, seed.noise), terms.tally(), terms.budget.looks[-1]
        process = prediction_requests(terms, tally, n)
        seed = self.suited(seed, pixels)
        bound_seed = bound(seed, image_sha256(pixels), self.bundle.manifest_sha256, f"predict {terms.words()}")
        return Job(pixels, bound_seed, tally, process), terms

    def prediction(self, job: Job, terms: Terms) -> Prediction:
        """What the votes of a finished prediction say."""
        return Prediction.of(terms, job, self.bundle)

    def verify(self, certificate: Certificate) -> None:
        """Check that a certificate is about this bundle's files. Raises `CertificateError`."""
        require_bundle(certificate, self.bundle)

    def replay(self, certificate: Certificate, image: ImageLike) -> None:
        """Draw a certificate's votes again from its seed; raises `CertificateError` unless all counts are the same.

        Exact on the same provider and engine version; elsewhere a rounding difference may move single votes.
        """
        if certificate.derived is not None:
            raise CertificateError("its votes are another bundle's; replay it with both: verify --bundle NEW --old OLD")
        self.verify(certificate)
        pixels = self.check_image(image, certificate.seed.noise)
        require_image(certificate, pixels)
        job = replay_job(certificate, pixels)
        next(Sampler(self.bundle, self.engine, batch_size=self.batch_size).run([job]))
        require_replayed(certificate, job.tally, self.artefact(pixels))

    def check_image(self, image: ImageLike, noise: Noise | None = None) -> npt.NDArray[np.float32]:
        """float32 [C,H,W] in [0, 1], on the lattice if `noise` is, from one image of the bundle's size: an array or
        tensor of float32 in [0, 1] or uint8, as [C,H,W], [H,W] where C is 1, or [H,W,C] where no other axis is C long;
        a picture of PIL's; or the path of a picture or NPY file. Where the bundle has a preprocessing, pictures and
        uint8 arrays may have any size. Raises `InputError` with what would mend it."""
        pixels = checked_image(image, self.bundle.input_shape, self.bundle.preprocessing)
        if noise is not None and noise.on_lattice:
            require_lattice(pixels)
        return pixels

    def suited(self, seed: Seed, pixels: npt.NDArray[Any]) -> Seed:
        """The seed with the mode of noise that suits an image, or images, at this bundle's levels, where it is
        `auto`."""
        return seed.suited(pixels, self.bundle.noise_levels)

    def artefact(self, pixels: npt.NDArray[np.float32]) -> Artefact:
        b, digest = self.bundle, image_sha256(pixels)
        how = (self.engine.provider, self.engine.name)
        return Artefact(b.manifest_sha256, b.files, b.precision, *how, digest, b.preprocessing)


@cache
def _version() -> str:
    """Reading it takes a millisecond, as long as a small decision."""
    return version("dualsmooth")
