"""A label without a radius, and what it rests on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.bundle.reading import Bundle
from dualsmooth.runtime.errors import CertificateError
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.rounding import confidence
from dualsmooth.runtime.smoothing.artefact import image_sha256
from dualsmooth.runtime.smoothing.sampler import Job
from dualsmooth.runtime.smoothing.stated import number
from dualsmooth.runtime.smoothing.view import class_name, label_words
from dualsmooth.runtime.statistics.questions import prediction_outcome
from dualsmooth.runtime.statistics.rules.rule import Terms


@dataclass(frozen=True)
class Prediction:
    """With probability at least 1 - `alpha`: `label` is what the dual classifier, by this route, returns for the input,
    or None (abstention). No radius is claimed. `seed`, and the hashes of manifest and image: what was sampled.

    `answer`: the classes that it stands for; several, and no `label`, where a set answers, or a `group`."""

    label: int | None
    sigma: float
    levels: tuple[float, ...]
    alpha: float
    route: str
    passes: int
    seed: Seed
    manifest_sha256: str
    image_sha256: str
    classes: tuple[str, ...] = field(default=(), compare=False)
    group: str | None = None
    answer: tuple[int, ...] = ()

    def __repr__(self) -> str:
        said = label_words(self.answer, self.classes, self.group)
        return f"<Prediction: {said}, {self.passes} passes, confidence {confidence(self.alpha)}>"

    @property
    def class_name(self) -> str | None:
        """The name of the label's class; None where there is no label, and where no names are known."""
        return class_name(self.label, self.classes)

    @property
    def abstained(self) -> bool:
        return not self.answer

    def to_json(self) -> str:
        stated = {**vars(self), "levels": list(self.levels), "seed": self.seed.to_dict()}
        del stated["classes"]
        if len(self.answer) < 2:  # as before there were groups
            del stated["group"], stated["answer"]
        return json.dumps({**stated, "abstained": self.abstained})

    @classmethod
    def of(cls, terms: Terms, job: Job, bundle: Bundle) -> Prediction:
        """What the votes of a finished job say."""
        part, kept = prediction_outcome(terms, job.tally)
        sigmas = tuple(terms.sigmas[level] for level in kept)
        answer = () if part is None else part.classes
        return cls(
            label=answer[0] if len(answer) == 1 else None,
            sigma=sigmas[0] if sigmas else 0.0,
            levels=sigmas,
            alpha=terms.alpha,
            route=terms.route_kind,
            passes=job.tally.total(),
            seed=replace(job.seed, binding=b""),
            manifest_sha256=bundle.manifest_sha256,
            image_sha256=image_sha256(job.image),
            classes=bundle.classes,
            group=(part.name or None) if part else None,
            answer=answer,
        )

    @classmethod
    def from_json(cls, text: str) -> Prediction:
        """Inverse of `to_json`. Raises `CertificateError`."""
        try:
            data = strict_json.loads(text)
            label = data["label"]
            if not (label is None or (type(label) is int and label >= 0)) or type(data["passes"]) is not int:
                raise TypeError("label or passes")
            names = ("route", "manifest_sha256", "image_sha256")
            if not all(isinstance(data[name], str) for name in names):
                raise TypeError(", ".join(names))
            group, answer = data.get("group"), tuple(data.get("answer", () if label is None else (label,)))
            if not (group is None or isinstance(group, str)) or any(type(c) is not int or c < 0 for c in answer):
                raise TypeError("group or answer")
            return cls(
                label=label,
                sigma=number(data["sigma"]),
                levels=tuple(number(s) for s in data["levels"]),
                alpha=number(data["alpha"]),
                passes=data["passes"],
                seed=Seed.from_dict(data["seed"]),
                group=group,
                answer=answer,
                **{name: data[name] for name in names},
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CertificateError(f"prediction is incomplete or damaged ({type(error).__name__})") from error
