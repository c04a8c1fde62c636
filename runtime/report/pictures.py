"""The images of a report, as PNG data inside the page. The noisy copies are drawn by the page itself."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np

from dualsmooth.runtime.datasets.dataset import Dataset
from dualsmooth.runtime.datasets.png import png
from dualsmooth.runtime.datasets.preprocess import preprocessed_array
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.evaluation.results import Result
from dualsmooth.runtime.smoothing.artefact import image_sha256

MAX_BYTES = 12_000_000
"""Room for pictures in one page; what does not fit is left out, and the page says so."""


def picture_data(dataset: Dataset, results: Iterable[Result]) -> dict[str, Any]:
    """The images that `results` are about: `{"width", "height", "png": {index: base64}, "left_out": count}`.

    Raises `InputError` where an image is not the one that its certificate is about.
    """
    pictures: dict[str, str] = {}
    left_out = used = 0
    height, width = dataset.images.shape[2:]
    for result in results:
        if str(result.index) in pictures:
            continue
        if result.index >= len(dataset):
            raise InputError(f"{dataset.name} has {len(dataset)} images; the results speak of image {result.index}")
        image = dataset.images[result.index]
        if (how := result.certificate.artefact.preprocessing) is not None:
            image = dataset.prepared(how).images[result.index]
            image = image if image.shape == how.shape else preprocessed_array(image, how)
            height, width = how.shape[1:]
        stated = result.certificate.artefact.image_sha256
        pixels = image.astype(np.float32) / np.float32(255)
        if image_sha256(pixels) != stated:
            raise InputError(
                f"image {result.index} of {dataset.name} is not the one that its certificate is about; pass the data "
                "set and split of the evaluation"
            )
        text = base64.b64encode(png(image)).decode() if image.shape[0] in (1, 3) else ""
        if not text or used + len(text) > MAX_BYTES:
            left_out += 1
            continue
        used += len(text)
        pictures[str(result.index)] = text
    return {
        "height": int(height),
        "width": int(width),
        "png": pictures,
        "left_out": left_out,
    }
