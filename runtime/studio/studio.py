"""What the page asks for: certificates whose votes can be watched, replays, and attacks. Knows nothing of HTTP."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import CertificateError, InputError
from dualsmooth.runtime.rounding import confidence
from dualsmooth.runtime.smoothing.certificate import Certificate
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.smoothing.sampler import Job, Sampler
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.smoothing.view import class_name, eight_bits
from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.foresight import best_radius
from dualsmooth.runtime.statistics.rules.rule import Terms
from dualsmooth.runtime.statistics.votes import CLASSIFIER, ESTIMATION, ESTIMATOR, Counts, Stream
from dualsmooth.runtime.studio import attack
from dualsmooth.runtime.studio.asked import Asked
from dualsmooth.runtime.studio.copies import Copies
from dualsmooth.runtime.studio.live import Live, told_outcome
from dualsmooth.runtime.studio.pictures import Pictures

PAUSE = 0.06
"""Seconds between two views of the votes: what an eye can follow."""
SHOWN_COPIES = 4
THERE = Fixed(1_000)
"""What is spent on a moved picture."""

Tell = Callable[[dict[str, Any]], None]
Check = Callable[[], None]
"""Called after every batch; raises where nobody waits for the answer any more, which ends the sampling."""


@dataclass(frozen=True)
class Studio:
    """One smoother, and pictures of known classes to try it on. Threads may share it."""

    smoother: Smoother
    pictures: Pictures

    def asked(self, body: bytes) -> Asked:
        """The fields of a request. Raises `InputError`."""
        bundle = self.smoother.bundle
        return Asked(body, bundle.input_shape, len(bundle.classes), len(bundle.sigmas))

    def certify(self, asked: Asked, tell: Tell, check: Check) -> None:
        """Tells what begins (with the first noisy copies of each stream), the votes as they come, and the certificate,
        which is that of `Smoother.certify` for the same seed. Raises `InputError` before it tells anything."""
        settings, image = asked.settings(), asked.pixels()
        asked.done()
        terms, pixels = settings.terms(self.smoother.bundle), self.smoother.check_image(image)
        job = self.smoother.job(pixels, terms, settings.seeds().at(0))
        tell({"event": "begun", **self._begun(terms, job)})
        live, told = Live(terms, job.tally), 0.0

        def heard(stream: Stream, counts: Counts) -> None:
            nonlocal told
            check()
            live.hear(stream, counts)
            if time.monotonic() - told >= PAUSE:
                told = time.monotonic()
                tell({"event": "votes", **live.told()})

        certificate, seconds = self._sampled(terms, job, heard)
        tell({"event": "votes", **live.told()})
        tell({"event": "certificate", **self._certified(certificate, seconds)})

    def replay(self, asked: Asked, check: Check) -> dict[str, Any]:
        """Whether a certificate follows from its votes, and its votes from its seed. Raises `InputError`."""
        text, image = asked.text("certificate") or "", asked.pixels()
        asked.done()
        start = time.monotonic()
        try:
            certificate = Certificate.from_json(text)
            self.smoother.replay(certificate, image)
        except CertificateError as error:
            return {"same": False, "line": str(error)}
        return {"same": True, "passes": certificate.passes, "seconds": time.monotonic() - start}

    def direction(self, asked: Asked, check: Check) -> dict[str, Any]:
        """Where another answer lies, by `way`: `picture` or `votes`. Raises `InputError`."""
        way, label, level = asked.text("way"), asked.place("label"), asked.place("level")
        reach, pixels = asked.distance(), self.smoother.check_image(asked.pixels())
        asked.done()
        if way == "picture":
            found, number = attack.towards(pixels, self.pictures.images, self.pictures.labels, label)
            words = f"towards the nearest picture here of another class ({self.pictures.names[number]})"
        elif way == "votes":
            found, passes = attack.by_votes(self.smoother, pixels, label, level, reach, check)
            words = f"away from the votes for the label, estimated from {passes:,} noisy copies"
        else:
            raise InputError(f"way is {str(way)[:40]!r}; expected picture or votes")
        return {"direction": in_base64(found.astype("<f4")), "words": words}

    def move(self, asked: Asked, check: Check) -> dict[str, Any]:
        """The picture moved `distance` along a direction, and what the same rule certifies there."""
        direction, distance = asked.direction(), asked.distance()
        settings, pixels = asked.settings(THERE), self.smoother.check_image(asked.pixels())
        asked.done()
        there = attack.moved(pixels, direction, distance)
        terms = settings.terms(self.smoother.bundle)
        job = self.smoother.job(there, terms, settings.seeds().at(0))
        certificate, _ = self._sampled(terms, job, lambda stream, counts: check())
        return {
            "pixels": in_base64(eight_bits(there)),
            "distance": attack.apart(pixels, there),
            "label": certificate.label,
            "name": certificate.class_name,
            "radius": certificate.radius,
            "passes": certificate.passes,
        }

    def _sampled(self, terms: Terms, job: Job, watch: Callable[[Stream, Counts], None]) -> tuple[Certificate, float]:
        job.watch = watch
        sampler = Sampler(self.smoother.bundle, self.smoother.engine, batch_size=self.smoother.batch_size)
        for _ in sampler.run([job], Meter()):
            pass
        certificate = replace(self.smoother.certificate(terms, job), picture=eight_bits(job.image))
        return certificate, job.seconds

    def _begun(self, terms: Terms, job: Job) -> dict[str, Any]:
        """Its terms, and for each network the first noisy copies that its bounded votes are of."""
        levels = range(len(terms.sigmas))
        streams = [] if terms.sigma_e is None else [Stream(ESTIMATOR, 0, ESTIMATION)]
        streams += [Stream(CLASSIFIER, level, ESTIMATION) for level in levels]
        shown = []
        for stream in streams:
            copies = Copies(self.smoother, job.seed, stream)
            noisy, votes = copies.draw(job.image, SHOWN_COPIES)
            shown.append({
                "name": "estimator" if stream.stage == ESTIMATOR else str(stream.level),
                "copies": [in_base64(eight_bits(np.clip(copy, 0, 1))) for copy in noisy],
                "votes": votes.tolist(),
            })  # fmt: skip
        return {
            "rule": str(terms.rule),
            "budget": str(terms.budget),
            "alpha": terms.alpha,
            "best": best_radius(terms),
            "most": terms.budget.looks[-1],
            "reading": terms.rule.legend.reading,
            "routed": terms.rule.only_level(terms) is None,
            "shown": shown,
        }

    def _certified(self, certificate: Certificate, seconds: float) -> dict[str, Any]:
        decides = certificate.terms.budget.decides
        return {
            "text": certificate.to_json(),
            "words": certificate.show().text.splitlines()[0],
            "subject": certificate.subject,
            "caveats": list(certificate.caveats()),
            "name": class_name(certificate.label, self.smoother.bundle.classes),
            "sigma": certificate.sigma,
            "confidence": confidence(certificate.alpha),
            "noise": str(certificate.seed.noise),
            "decided": None if decides is None else [[r, certificate.radius >= r] for r in decides],
            "passes": certificate.passes,
            "seconds": seconds,
            "outcome": told_outcome(certificate.outcome),
        }


def in_base64(array: npt.NDArray[Any]) -> str:
    """The values of an array, for the page."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
