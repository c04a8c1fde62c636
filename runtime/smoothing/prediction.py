"""A label without a radius, and what it rests on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.errors import CertificateError
from dualsmooth.runtime.noise.streams import Seed
from dualsmooth.runtime.rounding import confidence
from dualsmooth.runtime.smoothing.stated import number
from dualsmooth.runtime.smoothing.view import class_name, label_words


@dataclass(frozen=True)
class Prediction:
    """With probability at least 1 - `alpha`: `label` is what the dual classifier, by this route, returns for the input,
    or None (abstention). No radius is claimed. `seed`, and the hashes of manifest and image: what was sampled."""

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

    def __repr__(self) -> str:
        said = label_words(self.label, self.classes)
        return f"<Prediction: {said}, {self.passes} passes, confidence {confidence(self.alpha)}>"

    @property
    def class_name(self) -> str | None:
        """The name of the label's class; None where abstained, and where no names are known."""
        return class_name(self.label, self.classes)

    @property
    def abstained(self) -> bool:
        return self.label is None

    def to_json(self) -> str:
        stated = {**vars(self), "levels": list(self.levels), "seed": self.seed.to_dict()}
        del stated["classes"]
        return json.dumps({**stated, "abstained": self.abstained})

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
            return cls(
                label=label,
                sigma=number(data["sigma"]),
                levels=tuple(number(s) for s in data["levels"]),
                alpha=number(data["alpha"]),
                passes=data["passes"],
                seed=Seed.from_dict(data["seed"]),
                **{name: data[name] for name in names},
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CertificateError(f"prediction is incomplete or damaged ({type(error).__name__})") from error
