"""The words that a server and its clients share: modes, parameters, outputs, and a code for each refusal."""

from __future__ import annotations

import re
from typing import NamedTuple

from dualsmooth.runtime.errors import DualSmoothError, InputError, ServerError

CERTIFY, PREDICT, PING = "certify", "predict", "ping"
"""Modes of a request. `ping` asks only whether the service lives; it is answered without sampling."""
COARSER = ("groups", "at_most")
"""What may answer where the class is in doubt."""
PARAMETERS = {
    CERTIFY: ("mode", "alpha", "budget", "rule", "route", "seed", "nonce", "noise", "index", "all_levels", *COARSER),
    PREDICT: ("mode", "alpha", "n", "rule", "route", "seed", "nonce", "noise", "index", *COARSER),
}
"""What a request may say in each mode."""
SHARED_NOISE = "shared noise is for one evaluation on this machine; a server draws each request's own"
"""Why a request never asks for it."""
IMAGE, PICTURE = "IMAGE", "PICTURE"
"""The input tensors, of which a request has one: the pixels, or a picture file in base64."""
LABEL, RADIUS, SIGMA, ABSTAINED, CERTIFICATE = OUTPUTS = ("LABEL", "RADIUS", "SIGMA", "ABSTAINED", "CERTIFICATE")
"""The output tensors that our client asks for."""
TEXT = "CERTIFICATE_JSON"
"""The certificate once more, as text: for those who ask in JSON, where bytes would be a list of numbers."""
INSTANCE = "instance"
"""In the answer to a ping: the identity of the model's process."""
MODEL, STREAM = "dual_smoothing", "_stream"
"""The model, and what the name of its decoupled variant ends in."""
MANIFEST, PLACEMENT = "manifest", "engine"
"""Parameters of the model's configuration that both sides read: what is served, and where its networks run."""
IN_PROCESS, BLS = PLACEMENTS = ("in-process", "bls")
"""Where the networks run: in the model's own process, or as models of their own on the same server."""
TRITON = "triton"
"""The provider in certificates of networks that the server runs."""


class Refused(ServerError):
    """Nothing was sampled, so asking again is safe."""


class ServerFull(Refused):
    """As many requests wait as may."""


class GoingDown(Refused):
    """The server takes no more requests."""


class Stopped(ServerError):
    """Given up after it was accepted; no certificate is issued."""


class Cancelled(Stopped):
    """Nobody waits for it any more."""


class OverTime(Stopped):
    """It took longer than the server allows."""


class WentDown(Stopped):
    """The server went down meanwhile."""


class Failed(ServerError):
    """A network or the noise failed, or the request could not be taken; no certificate is issued."""


class Refusal(NamedTuple):
    """A kind of error on the wire: our code, its class on both sides, and the name of Triton's status."""

    code: str
    kind: type[DualSmoothError]
    status: str


FAILED = Refusal("failed", Failed, "INTERNAL")
REFUSALS = (
    Refusal("bad-request", InputError, "INVALID_ARG"),
    Refusal("full", ServerFull, "UNAVAILABLE"),
    Refusal("going-down", GoingDown, "UNAVAILABLE"),
    Refusal("cancelled", Cancelled, "CANCELLED"),
    Refusal("over-time", OverTime, "CANCELLED"),
    Refusal("went-down", WentDown, "CANCELLED"),
    FAILED,
)
_LINE = re.compile(r"dualsmooth\.([a-z-]+): (.*)", re.S)


def refusal_of(error: DualSmoothError) -> Refusal:
    """What an error is on the wire: all that is no refusal is a failure."""
    return next((refusal for refusal in REFUSALS if isinstance(error, refusal.kind)), FAILED)


def to_line(error: DualSmoothError) -> str:
    """An error as it travels, e.g. `dualsmooth.full: the server is full (3 requests wait); ask again later`."""
    return f"dualsmooth.{refusal_of(error).code}: {error}"


def from_line(line: str) -> tuple[type[DualSmoothError] | None, str]:
    """The class of an error that travelled, and its sentence. No class where the code is unknown, or there is none:
    then it is another version's, or not ours."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None, line
    return next((refusal.kind for refusal in REFUSALS if refusal.code == found[1]), None), found[2]
