"""What the page sends, read and checked before anything is drawn."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.errors import InputError, one_line
from dualsmooth.runtime.serving.requests import parse_groups
from dualsmooth.runtime.smoothing.settings import ALPHA, RULE, Settings
from dualsmooth.runtime.statistics.budgets import parse_budget

Shape = tuple[int, int, int]


class Asked:
    """The fields of one request. Each is taken once; `done` refuses what nobody took, so that no name is ignored."""

    def __init__(self, body: bytes, shape: Shape) -> None:
        try:
            found = strict_json.loads(body)
        except ValueError as error:
            raise InputError(f"the request is not JSON ({one_line(error)}); expected an object") from error
        if not isinstance(found, Mapping):
            raise InputError(f"the request is a {type(found).__name__}; expected an object")
        self._fields, self._shape = dict(found), shape

    def take(self, name: str) -> Any:
        """A field; None where it is missing, null or empty."""
        value = self._fields.pop(name, None)
        return None if value == "" else value

    def pixels(self, name: str = "pixels") -> npt.NDArray[np.uint8]:
        """A picture, uint8 [C,H,W]. Raises `InputError`."""
        return self._array(name, np.dtype(np.uint8))

    def direction(self) -> npt.NDArray[np.float64]:
        """A unit vector [C,H,W]. Raises `InputError`."""
        found = self._array("direction", np.dtype("<f4")).astype(np.float64)
        length = float(np.linalg.norm(found)) if np.isfinite(found).all() else math.nan
        if not 0.5 < length < 2:
            raise InputError(f"direction has length {length:g}; expected 1")
        return found / length

    def _array(self, name: str, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        text, size = self.take(name), math.prod(self._shape) * kind.itemsize
        try:
            data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        except (binascii.Error, ValueError):
            data = b""
        if len(data) != size:
            shape = list(self._shape)
            raise InputError(f"{name} has {len(data)} bytes; expected {size} in base64: {kind} values of {shape}")
        return np.frombuffer(data, kind).reshape(self._shape)

    def distance(self) -> float:
        """An L2 distance above 0. Raises `InputError`."""
        found = self.number("distance")
        if found is None or not 0 < found < 1e6:
            raise InputError(f"distance is {found}; expected a number above 0")
        return found

    def number(self, name: str) -> float | None:
        """A finite number, or None. Raises `InputError`."""
        value = self.take(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{name} is {str(value)[:40]!r}; expected a number")
        return None if value is None else float(value)

    def text(self, name: str) -> str | None:
        """A text, or None. Raises `InputError`."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{name} is {str(value)[:40]!r}; expected a text")
        return value

    def settings(self) -> Settings:
        """How a picture is to be certified. Raises `InputError`."""
        alpha, rule = self.number("alpha"), self.text("rule")
        stated, at_most = self.text("budget"), self.take("at_most")
        return Settings.of(
            alpha=ALPHA if alpha is None else alpha,
            rule=rule or RULE,
            budget=parse_budget(stated) if stated else None,
            mode=self.text("mode"),
            r=self.number("r"),
            seed=self._seed(),
            groups=parse_groups(self.take("groups")),
            at_most=1 if at_most is None else at_most,
        )

    def _seed(self) -> int | None:
        """A seed, as text: JavaScript's numbers end at 2^53."""
        text = self.text("seed")
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < 40):
            raise InputError(f"seed is {text[:40]!r}; expected an integer from 0 to 2^128 - 1, or none")
        return int(text)

    def done(self) -> None:
        """Raises `InputError` for a field that is not known."""
        if self._fields:
            raise InputError(f"the field {str(next(iter(self._fields)))[:40]!r} is not known here")
