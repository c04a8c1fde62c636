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
from dualsmooth.runtime.smoothing.checking import require_image
from dualsmooth.runtime.smoothing.meter import Meter
from dualsmooth.runtime.smoothing.packing import Watch
from dualsmooth.runtime.smoothing.sampler import Job, Sampler
from dualsmooth.runtime.smoothing.seeds import Seeds
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.smoothing.view import eight_bits, short_words
from dualsmooth.runtime.statistics.budgets import Fixed
from dualsmooth.runtime.statistics.foresight import best_radius, require_possible
from dualsmooth.runtime.statistics.groups import Part
from dualsmooth.runtime.statistics.questions import Question, check_requests, stated_question
from dualsmooth.runtime.statistics.rules.rule import Outcome, Terms
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
        return Asked(body, self.smoother.bundle.input_shape)

    def certify(self, asked: Asked, tell: Tell, check: Check) -> None:
        """Tells what begins (with the first noisy copies of each stream), the votes as they come, and the certificate,
        which is that of `Smoother.certify` for the same seed. Raises `InputError` before it tells anything."""
        settings, image = asked.settings(), asked.pixels()
        asked.done()
        terms, pixels = settings.terms(self.smoother.bundle), self.smoother.check_image(image)
        job = self.smoother.job(pixels, terms, settings.seeds().at(0))
        tell({"event": "begun", **self._begun(terms, job)})
        live, told = Live(terms, job.tally, self.smoother.bundle.classes), 0.0

        def heard(stream: Stream, counts: Counts, sure: Counts | None) -> None:
            nonlocal told
            check()
            live.hear(stream, counts, sure)
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
        """Where another answer than a certificate's lies, by `way`: `picture` or `votes`. Raises `InputError`."""
        way, reach = asked.text("way"), asked.distance()
        certificate, pixels = self._attacked(asked)
        outcome = certificate.outcome
        answer = outcome.asked.classes if outcome.asked else (outcome.guess,)
        if way == "picture":
            found, number = attack.towards(pixels, self.pictures.images, self.pictures.labels, answer)
            words = f"towards the nearest picture here of another class ({self.pictures.names[number]})"
        elif way == "votes":
            found, passes = attack.by_votes(self.smoother, pixels, answer, outcome.route, reach, check)
            words = f"away from the votes for the answer, estimated from {passes:,} noisy copies"
        else:
            raise InputError(f"way is {str(way)[:40]!r}; expected picture or votes")
        return {"direction": in_base64(found.astype("<f4")), "words": words}

    def move(self, asked: Asked, check: Check) -> dict[str, Any]:
        """The picture moved `distance` along a direction, and what votes say there to the very question that a
        certificate answers: of a group or a set, a label that changes inside it is no other answer, and the votes there
        choose no other question. Raises `InputError`."""
        direction, distance = asked.direction(), asked.distance()
        certificate, pixels = self._attacked(asked)
        there = attack.moved(pixels, direction, distance)
        terms = replace(certificate.terms, budget=THERE)
        require_possible(terms)
        question = stated_question(terms, certificate.outcome.asked)
        job = self.smoother.job(there, terms, Seeds(None, None).at(0))
        job.requests = check_requests(question, job.tally)
        self._sample(job, lambda *_: check())
        outcome = question.facing(job.tally).settle(job.tally)
        return {
            "pixels": in_base64(eight_bits(there)),
            "distance": attack.apart(pixels, there),
            "passes": job.tally.total(),
            "same": bool(outcome.answer) and outcome.answer == certificate.answer,
            "said": self._said(question, outcome),
        }

    def _said(self, question: Question, outcome: Outcome) -> str | None:
        """The answer to a question that was asked elsewhere, in words; None where there is none."""
        if not outcome.answer:
            return None
        if question.terms.among and outcome.answer != question.terms.among:
            return "a label outside the set"
        return short_words(outcome.asked or Part(outcome.answer), self.smoother.bundle.classes)

    def _attacked(self, asked: Asked) -> tuple[Certificate, npt.NDArray[np.float32]]:
        """The certificate that a request attacks, and its picture; the last that is taken of the request. Raises
        `InputError`."""
        text, pixels = asked.text("certificate") or "", self.smoother.check_image(asked.pixels())
        asked.done()
        try:
            certificate = Certificate.from_json(text)
            self.smoother.verify(certificate)
            require_image(certificate, pixels)
        except CertificateError as error:
            raise InputError(str(error)) from error
        return certificate, pixels

    def _sample(self, job: Job, watch: Watch) -> None:
        job.watch = watch
        sampler = Sampler(self.smoother.bundle, self.smoother.engine, batch_size=self.smoother.batch_size)
        for _ in sampler.run([job], Meter()):
            pass

    def _sampled(self, terms: Terms, job: Job, watch: Watch) -> tuple[Certificate, float]:
        self._sample(job, watch)
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
            "sigma": certificate.sigma,
            "confidence": confidence(certificate.alpha),
            "noise": str(certificate.seed.noise),
            "decided": None if decides is None else [[r, certificate.radius >= r] for r in decides],
            "passes": certificate.passes,
            "seconds": seconds,
            "outcome": told_outcome(certificate.outcome, self.smoother.bundle.classes),
        }


def in_base64(array: npt.NDArray[Any]) -> str:
    """The values of an array, for the page."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
