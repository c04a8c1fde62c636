"""Requests: an image and parameters, checked before any sampling, with the lines that a local call gives."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.datasets.single_images import read_picture
from dualsmooth.runtime.errors import InputError, one_line
from dualsmooth.runtime.noise.streams import AUTO, Seed, parse_noise
from dualsmooth.runtime.serving.limits import Limits
from dualsmooth.runtime.serving.protocol import CERTIFY, COARSER, IMAGE, PARAMETERS, PICTURE, PREDICT, SHARED_NOISE
from dualsmooth.runtime.serving.replies import Answer, Reply
from dualsmooth.runtime.smoothing.sampler import Job
from dualsmooth.runtime.smoothing.settings import GroupsGiven, Settings
from dualsmooth.runtime.smoothing.smoother import Smoother
from dualsmooth.runtime.statistics.budgets import parse_budget, whole
from dualsmooth.runtime.statistics.groups import FORM
from dualsmooth.runtime.statistics.rules.rule import Terms


class Asked(NamedTuple):
    """What a request asks for: a certificate or a prediction (`mode`), at which settings, with noise from which seed,
    which stands in place of the settings' own."""

    mode: str
    settings: Settings
    seed: Seed


@dataclass(eq=False)
class Ticket:
    """An accepted request."""

    job: Job
    answer: Callable[[], Answer]
    reply: Reply
    deadline: float
    started: float
    terms: Terms | None = None
    looks: int = field(default=0)


def read_parameters(text: str) -> dict[str, Any]:
    """The parameters of a request. Raises `InputError`."""
    try:
        given = strict_json.loads(text)
    except ValueError as error:
        raise InputError(f"request parameters are not JSON ({one_line(error)}); expected an object") from error
    if not isinstance(given, dict):
        raise InputError(f"request parameters are {type(given).__name__}; expected a JSON object")
    return given


def image_of(image: Any, picture: Any, bundle: Bundle) -> Any:
    """The image of a request, of the one input that is not None: pixels, or base64 of a PNG file, …, which becomes what
    the bundle takes. Raises `InputError`."""
    if (image is None) == (picture is None):
        raise InputError(f"expected either {IMAGE} (pixels) or {PICTURE} (a picture file in base64) as input")
    if picture is None:
        return image
    try:
        (text,) = np.ravel(picture)
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"{PICTURE} is not one text in base64 ({one_line(error)}); send base64 -w0 FILE") from error
    return read_picture(data, bundle.input_shape, bundle.preprocessing)


def accept(
    smoother: Smoother,
    limits: Limits,
    image: Any,
    parameters: Mapping[str, Any],
    reply: Reply,
    secret: Seed | None = None,
) -> Ticket:
    """Check a request and prepare its work. `secret`: the server's own part in the noise of requests with a nonce.
    Raises `InputError` with the same line as `certify` or `predict`."""
    return prepare(smoother, limits, image, asked_in(parameters, limits, secret), reply)


def prepare(smoother: Smoother, limits: Limits, image: Any, asked: Asked, reply: Reply) -> Ticket:
    """The work of a request. Raises `InputError` where the settings do not fit the bundle or go beyond the limits."""
    settings, seed, certifies = asked.settings, asked.seed, asked.mode == CERTIFY
    terms = (settings.terms if certifies else settings.prediction_terms)(smoother.bundle)
    seed.require_generator()
    budget = terms.budget
    chosen = budget.selection if certifies or terms.coarser else 0
    passes = (budget.looks[-1] + chosen) * len(smoother.bundle.noise_levels)
    limits.check(budget, passes, np.size(image))
    image = np.array(image)  # the caller's memory may be reused as soon as this returns
    started = time.monotonic()
    deadline = started + limits.max_seconds
    if not certifies:
        work, said = smoother.prediction_job(image, settings, seed)
        return Ticket(work, lambda: smoother.prediction(work, said), reply, deadline, started)
    job = smoother.job(image, terms, seed, all_levels=settings.all_levels)
    return Ticket(job, lambda: smoother.certificate(terms, job), reply, deadline, started, terms)


def asked_here(mode: str, settings: Settings, limits: Limits) -> Asked:
    """What a caller in this process asks for. Raises `InputError` for noise that no request may have."""
    if settings.seed is not None:
        _require_seeds(limits)
    seeds = settings.seeds()
    if seeds.noise.shared:
        raise InputError(SHARED_NOISE)
    return Asked(mode, settings, seeds.at(0))


def asked_in(parameters: Mapping[str, Any], limits: Limits, secret: Seed | None = None) -> Asked:
    """What the parameters of a request ask for; what they leave out is as for a local call. Raises `InputError`."""
    mode = _mode(parameters)
    parameters = {name: _read(name, value) for name, value in parameters.items()}
    given = {
        name: parameters[name] for name in ("alpha", "rule", "route", "all_levels", *COARSER) if name in parameters
    }
    if "groups" in given:
        given["groups"] = parse_groups(given["groups"])
    if type(given.get("all_levels", False)) is not bool:
        raise InputError(f"all_levels is {str(given['all_levels'])[:40]!r}; expected true or false")
    if mode == PREDICT:
        passes = {"n": parameters["n"]} if "n" in parameters else {}
        settings = Settings.of_prediction(**passes, **given)
    else:
        budget = parameters.get("budget")
        settings = Settings.of(budget=parse_budget(budget) if isinstance(budget, str) else budget, **given)
    return Asked(mode, settings, _seed(parameters, limits, secret))


def _mode(parameters: Mapping[str, Any]) -> str:
    """The mode of a request, which has no parameters but its own. Raises `InputError`."""
    mode = parameters.get("mode", CERTIFY)
    if not isinstance(mode, str) or mode not in PARAMETERS:
        raise InputError(f"mode {str(mode)[:40]!r} is unknown; expected {CERTIFY} or {PREDICT}")
    for name in parameters:
        if name not in PARAMETERS[mode]:
            known = ", ".join(PARAMETERS[mode][1:])
            raise InputError(f"parameter {str(name)[:40]!r} is unknown in mode {mode}; expected one of {known}")
    return mode


def _read(name: str, value: Any) -> Any:
    """Numbers and flags that were sent as text, as Triton's older clients do, and seeds beyond 64 bits must; what is
    not one stays text, for the check of that parameter to name."""
    if not isinstance(value, str) or len(value) >= 50:
        return value
    try:
        match name:
            case "n" | "index" | "at_most":
                return whole(value)
            case "seed":
                return int(value)
            case "alpha":
                return float(value)
            case "all_levels":
                return {"true": True, "false": False}.get(value.lower(), value)
    except (ValueError, OverflowError):
        pass
    return value


def parse_groups(value: Any) -> GroupsGiven:
    """The groups that a request says: true for the bundle's, or the JSON of other ones, as text. Raises `InputError`.

    >>> parse_groups("true"), parse_groups('{"shoes": [5, 7, 9]}')
    (True, {'shoes': [5, 7, 9]})
    """
    if not isinstance(value, str):
        if value is not None and type(value) is not bool:
            raise InputError(f"groups is {str(value)[:40]!r}; expected true, false or {FORM} as text")
        return bool(value)
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        found: GroupsGiven = strict_json.loads(value)
    except ValueError as error:
        raise InputError(f"groups is {value[:40]!r} ({one_line(error)}); expected true, false or {FORM}") from error
    return found


def _seed(parameters: Mapping[str, Any], limits: Limits, secret: Seed | None) -> Seed:
    """The seed that a request asks for, where that is allowed; else the server's, the same for the same nonce. Seeds
    are integers; ones beyond 64 bits travel as decimal text. Raises `InputError`."""
    value, nonce = parameters.get("seed"), parameters.get("nonce")
    noise, index = parse_noise(parameters.get("noise", AUTO)), parameters.get("index", 0)
    if nonce is not None and not (isinstance(nonce, str) and 16 <= len(nonce) <= 64 and nonce.isalnum()):
        raise InputError(f"nonce is {str(nonce)[:70]!r}; expected 16 to 64 random letters and digits")
    if value is not None:
        _require_seeds(limits)
    if value is None and nonce is not None and secret is not None:
        return replace(secret.answering(nonce), noise=noise).at(index)
    return Seed.make(value, noise).at(index)


def _require_seeds(limits: Limits) -> None:
    if not limits.allow_seed:
        raise InputError(
            "this server chooses its own seeds; ask without one, or set allow_seed in its Limits or config.pbtxt"
        )
