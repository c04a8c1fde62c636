"""Published or own weights from a local file, as the first weights of a network."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dualsmooth.runtime.errors import InputError, one_line
from dualsmooth.training.models import Network
from dualsmooth.training.zoo import Borrowed, with_channels


def load_pretrained(network: Network, path: str | Path) -> None:
    """Fill `network` with the state dict at `path`, a file of torch (read with `weights_only=True`) or safetensors.

    For a network of torchvision or timm these are the library's names, else our own. The head is taken where it has as
    many outputs, and left as it is otherwise; a first layer for colour images may serve grey ones. Everything else must
    fit exactly. Raises `InputError`.
    """
    values = _read(Path(path))
    trunk = network.trunk
    if isinstance(trunk, Borrowed):
        prefix = f"{trunk.head}."
        head = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        body = {key: value for key, value in values.items() if not key.startswith(prefix)}
        target: nn.Module = trunk.inner
    else:
        head = {key.removeprefix("head."): value for key, value in values.items() if key.startswith("head.")}
        body = {key: value for key, value in values.items() if not key.startswith("head.")}
        target = nn.ModuleDict({"normalise": network.normalise, "trunk": network.trunk})
    stem = next((key for key, value in target.state_dict().items() if value.ndim == 4 and key.endswith("weight")), "")
    if stem in body and body[stem].ndim == 4:
        body[stem] = with_channels(body[stem], target.state_dict()[stem].shape[1])
    try:
        target.load_state_dict(body)
        if head.keys() == {"weight", "bias"} and head["weight"].shape == network.head.weight.shape:
            network.head.load_state_dict(head)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the network ({one_line(error)}); expected its state dict") from error


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            values: Any = import_module("safetensors.torch").load_file(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise InputError(f"{path} needs safetensors; pip install safetensors") from error
    except Exception as error:  # damaged files fail in many ways inside torch
        raise InputError(f"cannot read {path} ({one_line(error)}); expected a state dict of tensors only") from error
    if isinstance(values, Mapping) and isinstance(values.get("state_dict"), Mapping):
        values = values["state_dict"]
    if not isinstance(values, Mapping) or not all(isinstance(v, torch.Tensor) for v in values.values()):
        raise InputError(f"{path} holds no state dict; expected names with tensors")
    return {str(key).removeprefix("module."): value for key, value in values.items()}
