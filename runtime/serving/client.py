"""The client: `connect("grpc://host:8001")` certifies on a Triton server, with the API of a local smoother.

Nothing that the server says is taken on trust, but for the votes themselves: a certificate is recomputed from its
counts, and must be about the image, terms, seed and files that were asked for.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dualsmooth.runtime.bundle.reading import parse_manifest
from dualsmooth.runtime.datasets.single_images import ImageLike
from dualsmooth.runtime.engine.engine import Engine
from dualsmooth.runtime.errors import CertificateError, EngineError, InputError, ServerError
from dualsmooth.runtime.noise.streams import DEFAULT_NOISE, Noise, Seed
from dualsmooth.runtime.serving.address import open_wire
from dualsmooth.runtime.serving.protocol import (
    BLS,
    LABEL,
    MANIFEST,
    MODEL,
    PLACEMENT,
    PREDICT,
    RADIUS,
    SHARED_NOISE,
    TRITON,
)
from dualsmooth.runtime.serving.tensors import Tensors, number_in, text_of
from dualsmooth.runtime.serving.wire import Pixels, Wire
from dualsmooth.runtime.smoothing.artefact import image_sha256
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.meter import Meter, Turns
from dualsmooth.runtime.smoothing.prediction import Prediction
from dualsmooth.runtime.smoothing.seeds import Seeds, numbered
from dualsmooth.runtime.smoothing.settings import ALPHA, RULE, GroupsGiven, Settings
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.statistics.budgets import Budget
from dualsmooth.runtime.statistics.groups import Part
from dualsmooth.runtime.statistics.rules.rule import Terms


def connect(
    url: str,
    *,
    model: str = MODEL,
    timeout: float = 300.0,
    retries: int = 3,
    shared_memory: bool = False,
) -> RemoteSmoother:
    """A smoother whose networks are on the Triton server at `grpc://host:8001` or `http://host:8000`.

    `timeout`: seconds for one request. `retries`: how often a server that cannot be reached or is full is asked again;
    a request that may have been sampled is never repeated. `shared_memory`: pass images through the shared memory of
    this machine. Raises `InputError`, `ServerError`.
    """
    wire = open_wire(url, model, timeout=timeout, retries=retries, shared_memory=shared_memory)
    try:
        config = wire.config()
        parameters = {name: str(entry.get("string_value", "")) for name, entry in config.get("parameters", {}).items()}
        if MANIFEST not in parameters:
            raise _another(wire, f"no parameter {MANIFEST} in its configuration")
        if config.get("model_transaction_policy", {}).get("decoupled"):
            raise _another(wire, "it is decoupled")
        wire.instance()
        return RemoteSmoother(wire, parameters)
    except BaseException:
        wire.close()
        raise


def _another(wire: Wire, why: str) -> ServerError:
    return ServerError(
        f"{wire.url}: model {wire.model} does not answer as {MODEL} does ({why}); connect to {MODEL}, which streams as "
        "well"
    )


class RemoteEngine(Engine):
    """Stands for the server's engine, whose name is the address; networks cannot be run from here."""

    def file_takes_sigma(self, name: str) -> bool:
        raise self._elsewhere()

    def logits(self, name: str, batch: Pixels, sigma: float, width: int) -> Pixels:
        raise self._elsewhere()

    def _elsewhere(self) -> EngineError:
        return EngineError(f"the networks of {self.name} run on the server; load the bundle to use them here")


class RemoteSmoother(Smoother):
    """`certify`, `predict` and `certify_many` of a local smoother, answered by a server. Close it, or use it in `with`.

    What only a holder of the networks can do (`replay`) raises `EngineError`.
    """

    def __init__(self, wire: Wire, parameters: dict[str, str]) -> None:
        if MANIFEST not in parameters:
            raise ServerError(f"{wire.url}: model {wire.model} is not a dualsmooth model")
        bundle = parse_manifest(Path(wire.url), parameters[MANIFEST].encode())
        provider = TRITON if parameters.get(PLACEMENT) == BLS else parameters.get("provider", "")
        super().__init__(bundle, RemoteEngine(provider, wire.url))
        self.wire = wire

    def certify_with(
        self,
        images: Iterable[ImageLike],
        settings: Settings,
        *,
        indices: Iterable[int] | None = None,
        in_flight: int = 16,
        meter: Meter | None = None,
    ) -> Iterator[Certificate]:
        """As for a local smoother, in order; `in_flight` requests are at the server at a time. Requests still there
        when the caller stops are cancelled (over gRPC). Raises `ServerError` as well. `meter` gets the seconds of each
        image (`Turns`), but learns of no batches."""
        if in_flight < 1:
            raise InputError(f"in_flight is {in_flight}; expected at least 1")
        terms, seeds = settings.terms(self.bundle), _asked(settings)
        source, waiting, turns = numbered(images, indices), deque[Any](), Turns()
        failure: Exception | None = None
        meter, more = meter or Meter(), True
        try:
            while True:
                while more and len(waiting) < in_flight:
                    try:
                        image, index = next(source)
                        asked = self._ask(image, terms, seeds.at(index), settings.all_levels)
                        waiting.append((*asked, asked[-1].timed(turns.begin())))
                    except StopIteration:
                        more = False
                    except Exception as error:
                        more, failure = False, error
                if not waiting:
                    break
                pixels, seed, pending, turn = waiting.popleft()
                answer = pending.result()
                turn.end()
                meter.last = turn.seconds
                yield self._checked(answer, pixels, terms, seed)
            if failure is not None:
                raise failure
        finally:
            for _, _, pending, _ in waiting:
                pending.cancel()

    def certify_stream(
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
    ) -> Iterator[Certificate]:
        """The certificate as it grows, the final one last; needs gRPC, and `<model>_stream` on the server.

        The bounds of all looks hold together, so with probability at least 1 - alpha *every* one that is yielded is
        true. Stopping early cancels the request.
        """
        settings = Settings.of(
            alpha=alpha, budget=budget, rule=rule, route=route, seed=seed, noise=noise, groups=groups, at_most=at_most,
            mode=mode, r=r,
        )  # fmt: skip
        terms, asked = settings.terms(self.bundle), _asked(settings).at(0)
        pixels = self.check_image(image, asked.noise)
        for tensors in self.wire.stream(pixels, _parameters(terms, asked, False)):
            yield self._checked(tensors, pixels, terms, self.suited(asked, pixels))

    def predict_with(self, image: ImageLike, settings: Settings) -> Prediction:
        """As for a local smoother. Raises `ServerError` as well."""
        asked = _asked(settings).at(0)
        job, terms = self.prediction_job(image, settings, asked)
        n, rule = terms.budget.looks[-1], str(terms.rule)
        parameters = {"mode": PREDICT, "alpha": terms.alpha, "n": int(n), "rule": rule, "route": terms.route_kind}
        sent = self.wire.send(job.image, parameters | _coarser(terms) | _randomness(asked))
        found = Prediction.from_json(text_of(sent.result()))
        fits = {
            "image": found.image_sha256 == image_sha256(job.image),
            "bundle": found.manifest_sha256 == self.bundle.manifest_sha256,
            "alpha or route": (found.alpha, found.route) == (terms.alpha, terms.route_kind),
            "seed": _same_seed(found.seed, self.suited(asked, job.image)),
            "label": all(0 <= c < len(self.bundle.classes) for c in found.answer),
            "group": found.group is None or _is_part(terms, found.group, found.answer),
        }
        self._require(fits)
        return replace(found, classes=self.bundle.classes)

    def check_health(self, *, timeout: float = 30.0) -> None:
        """A real inference through both networks; Triton's own readiness stays true when the model's process has died.

        Raises `ServerError`.
        """
        self.wire.ping(timeout)
        self.predict(np.zeros(self.bundle.input_shape, np.float32), n=16, alpha=0.1)

    def close(self) -> None:
        """Hang up. In a forked child that is the parent's to do."""
        if self.wire.begun_here():
            self.wire.close()

    def __getstate__(self) -> dict[str, Any]:
        """The address and how it is asked: a copy connects anew, to a server of the same bundle."""
        wire = self.wire
        asked = {"timeout": wire.timeout, "retries": wire.retries, "shared_memory": wire.shared_memory}
        return {"url": wire.url, "model": wire.model, **asked, "manifest_sha256": self.bundle.manifest_sha256}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        digest = state.pop("manifest_sha256")
        self._take_over(connect(**state), digest)

    def _ask(self, image: ImageLike, terms: Terms, asked: Seed, all_levels: bool) -> Any:
        pixels = self.check_image(image, asked.noise)
        sent = self.wire.send(pixels, _parameters(terms, asked, all_levels))
        return pixels, self.suited(asked, pixels), sent

    def _checked(self, tensors: Tensors, pixels: Pixels, terms: Terms, asked: Seed) -> Certificate:
        """The certificate in an answer, if it is one about what was asked."""
        certificate = Certificate.from_json(text_of(tensors))
        self.verify(certificate)
        fits = {
            "image": certificate.artefact.image_sha256 == image_sha256(pixels),
            "terms": certificate.terms == terms,
            "seed": _same_seed(certificate.seed, asked),
            "label": number_in(tensors, LABEL) == (-1 if certificate.label is None else certificate.label),
            "radius": abs(number_in(tensors, RADIUS) - certificate.radius) <= 2e-6,
        }
        self._require(fits)
        return replace(certificate, classes=self.bundle.classes, shape=self.bundle.input_shape)

    def _require(self, fits: Mapping[str, bool]) -> None:
        for what, good in fits.items():
            if not good:
                raise CertificateError(f"{self.wire.url} answered about another {what} than was asked")


def _is_part(terms: Terms, name: str, classes: tuple[int, ...]) -> bool:
    return terms.groups is not None and Part(classes, name) in terms.groups.parts


def _asked(settings: Settings) -> Seeds:
    """The randomness to ask for; a server chooses the entropy itself unless the seed is fixed. Raises `InputError`."""
    seeds = settings.seeds()
    if seeds.noise.shared:
        raise InputError(SHARED_NOISE)
    return seeds


def _same_seed(stated: Seed, asked: Seed) -> bool:
    return stated == (asked if asked.fixed else replace(asked, entropy=stated.entropy))


def _parameters(terms: Terms, asked: Seed, all_levels: bool) -> dict[str, Any]:
    made = {"alpha": terms.alpha, "budget": str(terms.budget), "rule": str(terms.rule), "route": terms.route_kind}
    made |= _coarser(terms)
    return made | {"index": asked.index} | _randomness(asked) | ({"all_levels": True} if all_levels else {})


def _coarser(terms: Terms) -> dict[str, Any]:
    """Request parameters of coarser questions; groups travel as JSON."""
    return {name: json.dumps(v) if name == "groups" else v for name, v in terms.coarser_dict().items()}


def _randomness(asked: Seed) -> dict[str, str]:
    """Request parameters of the noise; a seed travels as text, since it may have 128 bits. Without one, the nonce makes
    a server that gets the request twice draw the same votes."""
    seed = {"seed": str(asked.entropy)} if asked.fixed else {"nonce": f"{asked.entropy:032x}"}
    return seed | ({"noise": str(asked.noise)} if asked.noise != DEFAULT_NOISE else {})
