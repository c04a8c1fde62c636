"""Nested frozen dataclasses to TOML and back: types are checked, unknown keys are refused. Needs no torch."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.objectives import OBJECTIVES, Objective, objective_class


def read_toml(path: str | Path) -> dict[str, Any]:
    """The nested values of a TOML file; raises `InputError`.

    >>> read_toml("configs/fashion-mnist.toml")["dataset"]
    'fashion-mnist'
    """
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); pass the path of a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {str(error)[:200]}; correct the file") from error


def built(cls: type[Any], values: Mapping[str, Any], source: str, prefix: str = "") -> Any:
    """The dataclass `cls` from nested `values`; `source`, and `prefix` before each key, are named in errors."""
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InputError(f"{source}: {prefix}{unknown[0]} is unknown; expected one of {', '.join(sorted(hints))}")
    return cls(**{key: _convert(hints[key], value, source, prefix + key) for key, value in values.items()})


def _convert(kind: Any, value: Any, source: str, key: str) -> Any:
    if kind is Objective:
        return _objective(value, source, key)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
        return built(kind, value, source, f"{key}.")
    if get_origin(kind) is UnionType:
        return _one_of(get_args(kind), value, source, key)
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_convert(get_args(kind)[0], item, source, key) for item in value)
    if kind is float and type(value) in (int, float) and abs(value) < 1e300:
        return float(value)
    if kind in (int, str, bool) and type(value) is kind and _storable(value):
        return value
    item = "texts" if get_args(kind)[:1] == (str,) else "numbers"
    name = f"a list of {item}" if get_origin(kind) is tuple else {float: "a finite number"}.get(kind, kind.__name__)
    shown = repr(value) if _storable(value) else "too large a number, or no Unicode text"
    raise InputError(f"{source}: {key} is {shown}; expected {name}")


def _one_of(kinds: tuple[Any, ...], value: Any, source: str, key: str) -> Any:
    """A value that may be of several kinds, or None; the first kind is the one that errors name."""
    if value is None and NoneType in kinds:
        return None
    return _convert(next((kind for kind in kinds if type(value) is kind), kinds[0]), value, source, key)


def _storable(value: Any) -> bool:
    """Whether TOML can hold a number or text: 64 bits, and no halves of characters."""
    if isinstance(value, int):
        return abs(value) < 1 << 63
    return not isinstance(value, str) or not any("\ud800" <= c <= "\udfff" for c in value)


def _objective(value: Any, source: str, key: str) -> Any:
    """An objective from its name, or from a table whose `kind` is the name."""
    if isinstance(value, Objective):
        return value
    values = {"kind": value} if isinstance(value, str) else value
    kind = values.get("kind", "gaussian") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in OBJECTIVES:
        raise InputError(f"{source}: {key} is {value!r}; expected one of {', '.join(OBJECTIVES)}, or a table with kind")
    return built(objective_class(kind), values, source, f"{key}.")


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Nested values as TOML; None is left out."""
    lines = [f"{k} = {_toml_value(v)}" for k, v in values.items() if v is not None and not isinstance(v, Mapping)]
    text = "\n".join(lines) + "\n" if lines or not prefix else ""
    for name, section in values.items():
        if isinstance(section, Mapping):
            text += f"\n[{prefix}{name}]\n" + to_toml(section, f"{prefix}{name}.")
    return text


def _toml_value(value: Any) -> str:
    text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # which JSON leaves as it is, and TOML does not know
