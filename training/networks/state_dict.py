"""The weights in a file of torch or safetensors, read without running any code that the file names."""

from __future__ import annotations

import pickle
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from dualsmooth.runtime.errors import InputError, one_line

Tensors = dict[str, torch.Tensor]

_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    **{
        ("torch._utils", name): getattr(torch._utils, name)
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
    },
}
"""All that a file may call: what puts tensors and plain containers together."""


class Unread:
    """In place of whatever else a file names (arguments, optimisers, NumPy's numbers): takes all, does nothing."""

    origin = ""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, *_: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> Unread:
        return self

    def append(self, _: Any) -> None:
        """As a list would, for nothing."""

    extend = add = append


class _Reader(pickle.Unpickler):
    """Knows `_KNOWN`, and gives an `Unread` for every other name: nothing that a file names is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        return known or type(name, (Unread,), {"origin": f"{module}.{name}"})


_PICKLE = types.SimpleNamespace(
    __name__="tensors", Unpickler=_Reader, load=lambda file, **options: _Reader(file, **options).load()
)


def read_state_dict(path: str | Path, key: str = "") -> Tensors:
    """The weights in the checkpoint at `path` by name: a file of torch of any age, or safetensors.

    They may stand alone, or under a key such as `state_dict`, beside anything. `key` says which where there are several
    (with dots where it is nested). Nothing but tensors and plain containers is made. Raises `InputError`.
    """
    path = Path(path)
    values = _read(path)
    found = dict(_state_dicts(values, ""))
    if key:
        if key not in found:
            raise InputError(f"{path} has no weights under {key!r}; expected one of {', '.join(found) or 'none'}")
        return found[key]
    if not found:
        inside = f"a pickled {values.origin}" if isinstance(values, Unread) else _contents(values)
        raise InputError(
            f"{path} holds {inside}, and no state dict of tensors; save model.state_dict() (with torch.save) instead"
        )
    if len(found) > 1:
        raise InputError(
            f"{path} holds weights under {', '.join(found)}; say which, e.g. --checkpoint-key {next(iter(found))}"
        )
    return next(iter(found.values()))


def is_checkpoint(path: str | Path) -> bool:
    """Whether the file begins as those of torch do (a zip or a pickle), or is named as safetensors."""
    with Path(path).open("rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or start[:1] == b"\x80" or Path(path).suffix == ".safetensors"


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return import_module("safetensors.torch").load_file(path)
        if _is_torchscript(path):
            raise InputError(f"{path} is a TorchScript archive; save the module's state_dict() instead")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of whole modules in old files, which are not read
            return torch.load(path, "cpu", _PICKLE, weights_only=False, encoding="latin1")
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{path} needs safetensors; pip install safetensors") from error
    except Exception as error:  # damaged files fail in many ways inside torch
        raise InputError(f"cannot read {path} ({one_line(error)}); expected a state dict of tensors") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _state_dicts(values: Any, prefix: str) -> Iterator[tuple[str, Tensors]]:
    """All that looks like a state dict in nested containers, by the keys that lead there."""
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        return
    tensors = {key: value for key, value in values.items() if isinstance(value, torch.Tensor)}
    weights = any(value.ndim > 1 for value in tensors.values())
    if weights and len(tensors) == len(values):
        yield prefix, tensors
        return
    paths = {key: f"{prefix}.{key}" if prefix else key for key in values}
    inner = [found for key, value in values.items() for found in _state_dicts(value, paths[key])]
    if not inner and weights:
        yield prefix, tensors
    yield from inner


def _contents(values: Any) -> str:
    if not isinstance(values, Mapping):
        return f"a {type(values).__name__}"
    modules = [f"a pickled {v.origin} under {k!r}" for k, v in values.items() if isinstance(v, Unread)]
    return modules[0] if modules else f"the keys {', '.join(map(str, values))[:100] or 'of an empty dictionary'}"
