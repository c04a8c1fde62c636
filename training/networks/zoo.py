"""Networks of torchvision and timm as trunks: their head is taken off, and their first layer takes any channels."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn

from dualsmooth.runtime.errors import InputError, one_line
from dualsmooth.training.networks.network import Kind, ModelSpec

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation that most published weights expect, per channel in [0, 1] units."""

LIBRARIES = ("torchvision", "timm")
Parts = tuple[nn.Module, str, int]
UNFIT = (RuntimeError, ValueError, AssertionError, TypeError, AttributeError, LookupError, StopIteration)


class LibraryTrunk(nn.Module):
    """A library's network that ends in features [N,F]; `head` is the name of the layer that was taken off it."""

    def __init__(self, make: Callable[[], Parts], input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self._make = make
        self.inner, self.head, self.features = _seeded(make, 0)
        self.inner.eval()
        with torch.no_grad():
            found = self.inner(torch.zeros(1, *input_shape))
        if not isinstance(found, torch.Tensor) or found.shape != (1, self.features):
            raise ValueError(f"it gives {getattr(found, 'shape', type(found).__name__)}, not one row of features")
        self.inner.train()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.inner(x)
        return features

    def draw(self, seed: int) -> None:
        """First weights as the library draws them, from `seed`."""
        self.inner.load_state_dict(_seeded(self._make, seed)[0].state_dict())


def library_trunk(name: str, input_shape: tuple[int, int, int]) -> LibraryTrunk:
    """The trunk `torchvision:NAME` or `timm:NAME` for images of `input_shape`. Raises `InputError`."""
    library, _, model = name.partition(":")
    module = known_to(library, model)
    make = _torchvision if library == "torchvision" else _timm
    try:
        return LibraryTrunk(lambda: make(module, model, input_shape), input_shape)
    except UNFIT as error:
        raise InputError(
            f"model {name} cannot serve images {list(input_shape)} ({one_line(error)}); choose another model or size"
        ) from error


def known_to(library: str, model: str) -> Any:
    """The Python module of `library` that makes its `model`. Raises `InputError`."""
    try:
        module: Any = import_module("torchvision.models" if library == "torchvision" else library)
    except ImportError as error:
        raise InputError(f"model {library}:{model} needs {library}; pip install 'dualsmooth[{library}]'") from error
    known = module.list_models()
    if model not in known:
        close = [other for other in known if other[:4] == model[:4]][:6] or known[:6]
        raise InputError(f"model '{library}:{model}' is unknown to {library}; expected e.g. {', '.join(close)}")
    return module


def statistics_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the published weights of a model expect."""
    library, _, model = name.partition(":")
    if library == "timm":
        settings = import_module("timm").get_pretrained_cfg(model)
        if settings is not None and settings.mean is not None:
            return tuple(settings.mean), tuple(settings.std)
    return IMAGENET


def with_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """First-layer weights [F,3,h,w] for another number of channels: their sum for grey images, so that a grey picture
    gives what it gave in colour."""
    if weight.shape[1] == channels:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    raise InputError(f"weights for {weight.shape[1]} channels cannot serve {channels}; expected as many, or 1")


def _torchvision(module: Any, model: str, input_shape: tuple[int, int, int]) -> Parts:
    channels, height, width = input_shape
    options: dict[str, Any] = {"image_size": height} if model.startswith("vit_") and height == width else {}
    if model in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    network: nn.Module = module.get_model(model, weights=None, **options)
    head = [key for key, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    features = int(network.get_submodule(head).in_features)  # type: ignore[arg-type]
    network.set_submodule(head, nn.Identity())
    take_channels(network, channels)
    return network, head, features


def take_channels(network: nn.Module, channels: int) -> None:
    """Make the first convolution of `network` one for images of `channels` channels."""
    stem, first = next((k, m) for k, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels != channels:
        other = nn.Conv2d(
            channels, first.out_channels, first.kernel_size, first.stride, first.padding,  # type: ignore[arg-type]
            bias=first.bias is not None,
        )  # fmt: skip
        network.set_submodule(stem, other)


def _timm(module: Any, model: str, input_shape: tuple[int, int, int]) -> Parts:
    network: nn.Module = module.create_model(model, pretrained=False, num_classes=0, in_chans=input_shape[0])
    settings: Any = network.default_cfg
    head = settings.get("classifier", "")
    features: Any = getattr(network, "head_hidden_size", None) or network.num_features
    return network, head if isinstance(head, str) else head[0], int(features)


def _seeded(make: Callable[[], Parts], seed: int) -> Parts:
    """Call `make`, which draws from torch's global generator, with that generator at `seed`; it is put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _trunk_of(spec: ModelSpec) -> tuple[nn.Module, int]:
    """The trunk that a spec borrows; width and depth are part of the library's name."""
    if (spec.width, spec.depth) != (1.0, 1.0):
        raise InputError(f"width and depth are {spec.width:g} and {spec.depth:g}; expected 1 for model {spec.name}")
    trunk = library_trunk(spec.name, spec.input_shape)
    return trunk, trunk.features


def _library(name: str, example: str) -> Kind:
    return Kind(f"{name}:NAME", f"{name}:{example}", lambda model: model.partition(":")[0] == name, _trunk_of)


TORCHVISION, TIMM = _library("torchvision", "resnet18"), _library("timm", "resnet10t")
