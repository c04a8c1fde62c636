"""A bare ONNX file of a classifier in place of a bundle: what it does not say is asked for, never guessed, and the
export stage makes a bundle of one noise level of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import cast

from dualsmooth.runtime.bundle.reading import MANIFEST, Bundle, bundle_folder
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.graphs.foreign_files import foreign

Pixels = str | tuple[float | Sequence[float], float | Sequence[float]]
"""What a network takes for images in [0, 1]: a word of `SCALES`, or mean and std, each a number a channel or one."""
SCALES = {"0..1": 1, "0..255": 255}
"""What images in [0, 1] are multiplied by."""
PIXEL_FORMS = "'0..1' (the network takes images in [0, 1]), '0..255', or mean and std of (x - mean) / std for [0, 1]"
_EXPORT = "dualsmooth.export.one_file"
"""Above this floor, and heavy: looked up by name when there is a file, as commands are."""


@dataclass(frozen=True)
class Facts:
    """What an ONNX file cannot say of itself, or does not always: its noise level and what it does with pixels; names
    (or the number) of its classes and the shape [C,H,W] where it does not declare them; `layout`: `nhwc` where it takes
    channels last."""

    sigma: float | None = None
    pixels: Pixels | None = None
    classes: int | str | Sequence[str] | None = None
    input_shape: Sequence[int] | None = None
    layout: str | None = None

    def require_none(self, source: object) -> None:
        """Raises `InputError` where something is said of a bundle, which says that itself; sigma may choose its
        level."""
        for field in fields(self):
            if field.name != "sigma" and getattr(self, field.name) is not None:
                raise InputError(f"{field.name} with {source}; it is for a bare ONNX file, bundles say it themselves")


def is_file(source: object) -> bool:
    """Whether this is a file, or is named like an ONNX file, and so is no bundle.

    >>> is_file("networks/model.onnx"), is_file("fashion-mnist")
    (True, False)
    """
    if not isinstance(source, str | Path) or Path(source).name == MANIFEST:
        return False
    path = bundle_folder(source)
    return path.is_file() or (path.suffix.lower() == ".onnx" and not path.is_dir())


def bundle_of(source: str | Path, out: str | Path, facts: Facts) -> Bundle:
    """The bundle of one noise level in the new folder `out`, made of the ONNX file `source`. Raises `InputError` for a
    file of another kind, for what is not said and where the export stage is not installed, else as `export_file`."""
    path = Path(source)
    if said := foreign(path) or ("" if path.is_file() else f"{path} is not a file; pass an ONNX file, or a bundle"):
        raise InputError(said)
    needs = {"sigma": "the level of the noise it is to be smoothed with", "pixels": PIXEL_FORMS}
    if missing := [f"{name} (--{name}): {what}" for name, what in needs.items() if getattr(facts, name) is None]:
        raise InputError(
            f"{path} is a bare ONNX file, which does not say all that is needed; pass {'; '.join(missing)}"
        )
    given = {field.name: value for field in fields(facts) if (value := getattr(facts, field.name)) is not None}
    try:
        export = import_module(_EXPORT)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} is a bare ONNX file, and making a bundle of it needs {error.name}; pip install "
            "'dualsmooth[export,cpu]', or pass a bundle"
        ) from error
    return cast(Bundle, export.export_file(path, out, **given))


def parse_pixels(text: str) -> Pixels:
    """`pixels` as it is typed: a word, or means and deviations with commas, a slash between. Raises `InputError`.

    >>> parse_pixels("0..255"), parse_pixels("0.5,0.4/0.2")
    ('0..255', ([0.5, 0.4], [0.2]))
    """
    if text in SCALES:
        return text
    try:
        mean, std = ([float(number) for number in part.split(",")] for part in text.split("/"))
    except ValueError:
        forms = "0..1, 0..255, or MEAN/STD, e.g. 0.4914,0.4822,0.4465/0.2023,0.1994,0.2010"
        raise InputError(f"--pixels {text[:60]!r}; expected {forms}") from None
    return mean, std
