"""Two engines that vote on the same noisy copies: what paired passes are drawn with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.bundle.reading import BaseModel, Bundle
from dualsmooth.runtime.engine.engine import Engine
from dualsmooth.runtime.engine.lanes import Lanes, Started
from dualsmooth.runtime.errors import InputError


@dataclass(frozen=True)
class PairedModel(BaseModel):
    """The base models of one stage and level in both bundles."""

    old: BaseModel | None = None
    new: BaseModel | None = None


class PairedEngine:
    """Runs the networks of two bundles on the same batches; a vote a * width + b says that the old one voted for a and
    the new one for b. Raises `InputError` where the batches of the two lie on different devices."""

    def __init__(self, old: Engine, new: Engine) -> None:
        if old.xp is not new.xp:
            raise InputError(f"{old.name} and {new.name} take batches on different devices; run both on one")
        self.old, self.new, self.xp = old, new, old.xp

    def takes_sigma(self, model: BaseModel) -> bool:
        old, new = _both(model)
        return self.old.takes_sigma(old) or self.new.takes_sigma(new)

    def votes(
        self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int
    ) -> npt.NDArray[np.int64]:
        """The pairs [m] of a batch [m,C,H,W]; `width`: how many pairs there are. Raises `EngineError`."""
        (old, new), classes = _both(model), isqrt(width)
        return self.old.votes(old, batch, sigma, classes) * classes + self.new.votes(new, batch, sigma, classes)

    def start(self, model: BaseModel, batch: npt.NDArray[np.float32], sigma: float, width: int) -> Started:
        """`votes`, taken when they are asked for."""
        return Lanes(1).start(len(batch), lambda rows: self.votes(model, batch[rows], sigma, width))


def paired_bundle(old: Bundle, new: Bundle) -> Bundle:
    """The old bundle with base models of both. Raises `InputError` where the two answer different questions."""
    for name in ("sigmas", "sigma_e", "classes", "input_shape", "preprocessing", "sure"):
        a, b = getattr(old, name), getattr(new, name)
        if a != b:
            raise InputError(
                f"{new.path} has {name} {str(b)[:60]}, {old.path} has {str(a)[:60]}; certificates are derived for a "
                "bundle with the same levels, classes and input: certify the new one anew"
            )
    routers = None if old.estimator is None else PairedModel((), old=old.estimator, new=new.estimator)
    levels = zip(old.classifiers, new.classifiers, strict=True)
    return replace(
        old,
        estimator=routers,
        classifiers=tuple(PairedModel((), old=a, new=b) for a, b in levels),
        sure=(),
    )


def _both(model: BaseModel) -> tuple[BaseModel, BaseModel]:
    if isinstance(model, PairedModel) and model.old and model.new:
        return model.old, model.new
    raise TypeError(f"{model} is not a pair of base models")
