"""Published or own weights from a local file, as the first weights of a network."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dualsmooth.runtime.errors import InputError, one_line
from dualsmooth.training.networks.network import Network
from dualsmooth.training.networks.state_dict import read_state_dict
from dualsmooth.training.networks.zoo import LibraryTrunk, with_channels


def load_pretrained(network: Network, path: str | Path) -> None:
    """Fill `network` with the state dict at `path`, a file of torch or safetensors.

    For a network of torchvision or timm these are the library's names, else our own. The head is taken where it has as
    many outputs, and left as it is otherwise; a first layer for colour images may serve grey ones. Everything else must
    fit exactly. Raises `InputError`.
    """
    values = {key.removeprefix("module."): value for key, value in read_state_dict(path).items()}
    trunk = network.trunk
    if isinstance(trunk, LibraryTrunk):
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
