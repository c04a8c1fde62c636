"""IDX files of bytes, gzipped or not: the format of MNIST and of the sets that were made in its likeness."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import InputError


def read_idx(folder: Path, name: str, ndim: int, *, fix: str) -> npt.NDArray[np.uint8]:
    """The array of `ndim` dimensions in the file `name` or `name.gz` of `folder`. Raises `InputError`, with the `fix`
    where neither is there."""
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
    if path is None:
        raise InputError(f"no {name}[.gz] in {folder}; {fix}")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path} ({error}); download the file again") from error
    header = 4 + 4 * ndim
    if len(raw) < header or raw[:4] != bytes((0, 0, 8, ndim)):
        raise InputError(f"{path} is not an IDX file of bytes with {ndim} dimensions; download the file again")
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    data = np.frombuffer(raw, np.uint8, offset=header)
    if data.size != int(np.prod(shape, dtype=np.int64)):
        raise InputError(
            f"{path} is truncated: {data.size} bytes of data for shape {list(shape)}; download the file again"
        )
    return data.reshape(shape)
