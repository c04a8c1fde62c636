"""A checkpoint as the field saves it, in the network that it belongs to: whatever stands before its names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from dualsmooth.export.onnx.modules import normalised, unwrapped
from dualsmooth.export.onnx.normalisation import Statistics
from dualsmooth.runtime.errors import InputError, one_line
from dualsmooth.training.networks.resnet import ResidualNetwork
from dualsmooth.training.networks.state_dict import Tensors, read_state_dict

T = TypeVar("T")
_MEANS = ("mean", "means", "new_mean", "mu", "pixel_mean")
_DEVIATIONS = ("std", "stds", "new_std", "sds", "sd", "sigma", "pixel_std")
_COUNTERS = ("num_batches_tracked", "n_averaged")
_WRAPPERS = ("module", "_orig_mod")
_BEHIND_A_LAYER = re.compile(r"(^|\.)1\.$")


def load_checkpoint(
    path: str | Path,
    module: nn.Module,
    *,
    key: str = "",
    mean: Statistics | None = None,
    std: Statistics | None = None,
) -> nn.Module:
    """Fill `module` with the weights in the file at `path`, and return it, ready for `export_bundle`.

    The file is one of torch or safetensors (`read_state_dict`, with `key`). Its names may have anything in front:
    "module.", "1.", "_orig_mod.", "model.", …; everything else must fit exactly. Where the file holds the mean and
    deviation of a normalising layer beside the network, or `mean` and `std` are given, what is returned has
    (x - mean) / std in front. Where a normalising layer left no values in the file, as that of Cohen et al., they must
    be given. Raises `InputError`.

    >>> import tempfile
    >>> saved, mine = nn.Linear(2, 3), nn.Linear(2, 3)
    >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
    ...     torch.save({"state_dict": {f"module.{name}": w for name, w in saved.state_dict().items()}}, file.name)
    ...     bool((load_checkpoint(file.name, mine).weight == saved.weight).all())
    True
    """
    values, target = _without_wrappers(read_state_dict(path, key)), unwrapped(module)
    fit = max((_fit(values, names) for names in _namings(target)), key=lambda found: len(found.taken))
    inside = _check(path, target, fit, values)
    if inside and (mean is not None or std is not None):
        raise InputError(f"{path} holds a mean {inside[0]} and deviation {inside[1]} of its own; leave yours out")
    if fit.headless and mean is None and std is None:
        raise InputError(
            f"{path} was saved behind a first layer without weights (its names begin with {fit.prefix!r}), as the "
            "NormalizeLayer of Cohen et al.: pass its mean and std (--classifier-mean, --classifier-std), there "
            "0.4914,0.4822,0.4465 and 0.2023,0.1994,0.2010 for CIFAR-10, 0.485,0.456,0.406 and 0.229,0.224,0.225 for "
            "ImageNet; 0 and 1 if it did not normalise"
        )
    try:
        target.load_state_dict({own: values[name] for own, name in fit.taken.items()}, strict=False)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit {type(target).__name__} ({one_line(error)})") from error
    mean, std = inside or (mean, std)
    return module if mean is None and std is None else normalised(target, mean, std)


@dataclass(frozen=True)
class _Fit:
    """Which weight of the file is which of the network (`taken`: own name to the file's), and what is left on both
    sides; `headless`: the file was saved behind a layer that left nothing in it, and the network has none there."""

    taken: dict[str, str]
    prefix: str
    missing: list[str]
    extra: list[str]
    headless: bool


def _namings(target: nn.Module) -> Iterable[dict[str, str]]:
    """What the weights of `target` may be called in a file: own name to the file's, without what stands before all."""
    own = _without_wrappers({key: key for key in target.state_dict()})
    yield {key: name for name, key in own.items()}
    names = [name.split(".") for name in own]
    shared = 0
    while names and min(map(len, names)) > shared + 1 and len({name[shared] for name in names}) == 1:
        shared += 1
    yield {key: ".".join(name[shared:]) for name, key in zip(names, own.values(), strict=True)}
    if isinstance(target, ResidualNetwork):
        yield target.published_names()


def _without_wrappers(values: Mapping[str, T]) -> dict[str, T]:
    """The names without the parts that DataParallel and torch.compile put in."""
    plain = {".".join(p for p in key.split(".") if p not in _WRAPPERS): value for key, value in values.items()}
    return plain if len(plain) == len(values) else dict(values)


def _fit(values: Tensors, names: Mapping[str, str]) -> _Fit:
    wanted = {name: own for own, name in names.items()}
    found: Counter[str] = Counter()
    for key in values:
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", key))):
            found[key[:start]] += key[start:] in wanted
    prefix = max(found, key=lambda each: (found[each], -len(each)), default="")
    taken = {own: prefix + name for name, own in wanted.items() if prefix + name in values}
    used = set(taken.values())
    missing = [name for name, own in wanted.items() if own not in taken and not name.endswith(_COUNTERS)]
    extra = [
        key
        for key in values
        if key not in used and not key.endswith(_COUNTERS) and not _twin(key, values, wanted, prefix)
    ]
    behind = _BEHIND_A_LAYER.search(prefix)
    before = prefix[: behind.start(0)] + behind[1] + "0." if behind else ""
    in_network = any(_BEHIND_A_LAYER.search(own.removesuffix(name)) for name, own in wanted.items())
    headless = behind is not None and not in_network and not any(key.startswith(before) for key in values)
    return _Fit(taken, prefix, missing, extra, headless)


def _twin(key: str, values: Tensors, wanted: Mapping[str, str], prefix: str) -> bool:
    """Whether a weight is that of the same name under `prefix` once more, as attack code keeps it."""
    parts = key.split(".")
    names = (prefix + ".".join(parts[start:]) for start in range(1, len(parts)))
    return any(
        name in values and name.removeprefix(prefix) in wanted and torch.equal(values[key], values[name])
        for name in names
    )


def _check(path: str | Path, target: nn.Module, fit: _Fit, values: Tensors) -> tuple[list[float], list[float]] | None:
    """Raises `InputError` unless file and network have the same weights; returns the mean and deviation of a
    normalising layer that only the file has."""
    expected, kind = target.state_dict(), type(target).__name__
    ends = {name: name.rpartition(".")[2] for name in (*fit.extra, *fit.missing)}
    missing = [name for name in fit.missing if ends[name] not in (*_MEANS, *_DEVIATIONS)]
    means, deviations = (
        [k for k in fit.extra if ends[k] in which and values[k].numel() < 5] for which in (_MEANS, _DEVIATIONS)
    )
    extra = [name for name in fit.extra if name not in (*means, *deviations)]
    if missing or extra or bool(means) != bool(deviations):
        parts = [
            f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            for what, names in (("the file lacks", missing), ("the network lacks", extra or fit.extra))
            if names
        ]
        raise InputError(
            f"{path} does not hold the weights of {kind} ({len(fit.taken)} of {len(expected)} names fit): "
            f"{'; '.join(parts)}; choose the architecture that it was trained with"
        )
    wrong = [
        f"{name} is {list(values[name].shape)} in the file and {list(expected[own].shape)} in the network"
        for own, name in fit.taken.items()
        if not is_lazy(expected[own]) and values[name].shape != expected[own].shape
    ]
    if wrong:
        raise InputError(
            f"{path} does not fit {kind}: {'; '.join(wrong[:3])}; choose the architecture and the number of classes "
            "that it was trained with"
        )
    if not means:
        return None
    return values[means[0]].flatten().tolist(), values[deviations[0]].flatten().tolist()
