"""PyTorch modules as they are handed over: taken out of wrappers, at rest, and tried before they are traced."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from dualsmooth.export.onnx.normalisation import Statistics, check_statistics
from dualsmooth.runtime.errors import BundleError, one_line

ROWS = 1e-3
"""How far the logits of an image may move with its batch: other batch sizes use other kernels, with other rounding."""

_INSIDE = {
    "DataParallel": "module", "DistributedDataParallel": "module", "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
}  # fmt: skip
"""Wrappers of torch that compute what the module inside computes, and where that is."""


def unwrapped(module: nn.Module) -> nn.Module:
    """What is inside of DataParallel, DistributedDataParallel, AveragedModel and torch.compile, in any order."""
    while type(module).__module__.startswith("torch.") and type(module).__name__ in _INSIDE:
        module = getattr(module, _INSIDE[type(module).__name__])
    return module


def takes_sigma(module: nn.Module) -> bool:
    """Whether `forward` has a parameter `sigma`: the module is conditional on the noise level, a scalar tensor.

    Raises `BundleError` where it could not be given as the second argument.
    """
    arguments = inspect.signature(unwrapped(module).forward).parameters
    if "sigma" not in arguments:
        return False
    sigma = arguments["sigma"]
    second = list(arguments)[1:2] == ["sigma"] and sigma.kind == sigma.POSITIONAL_OR_KEYWORD
    if not second or not (sigma.default in (sigma.empty, None) or isinstance(sigma.default, int | float)):
        raise BundleError(
            f"{type(unwrapped(module)).__name__}.forward has a parameter `{sigma}`; expected forward(x, sigma), where "
            "sigma is the noise level, a tensor: rename it, or wrap the module in one with that forward"
        )
    return True


@contextmanager
def at_rest(module: nn.Module) -> Iterator[nn.Module]:
    """`module` out of its wrappers, in evaluation mode and on the CPU; afterwards it is as it was.

    Raises `BundleError` for a module that is no float32 network with weights, or that has no Python code to trace.
    """
    root = unwrapped(module)
    _check(root)
    undo: list[tuple[dict[str, Any], str, Any]] = []
    moved: dict[int, Any] = {}

    def put(store: Any, key: str, value: Any) -> None:
        undo.append((store, key, store[key]))
        store[key] = value

    training, switched = {part: part.training for part in root.modules()}, False
    try:
        for part in list(training):
            for key, child in list(part._modules.items()):
                if child is not None and unwrapped(child) is not child:
                    put(part._modules, key, unwrapped(child))
            if vars(part).get("_compiled_call_impl") is not None:  # of module.compile()
                put(vars(part), "_compiled_call_impl", None)
            for store in (part._parameters, part._buffers, vars(part)):
                for key, value in list(store.items()):
                    if isinstance(value, torch.Tensor) and value.device.type != "cpu":
                        put(store, key, moved.setdefault(id(value), _on_cpu(value)))
        switched = any(training.values()) and _evaluating(root)
        yield root
    finally:
        if switched:
            root.train(training[root])
        for store, key, value in reversed(undo):
            store[key] = value
        for part, flag in training.items():
            part.training = flag


def _evaluating(root: nn.Module) -> bool:
    try:
        root.eval()
    except NotImplementedError:  # the module of an exported program, whose mode is fixed
        return False
    return True


def _on_cpu(value: torch.Tensor) -> torch.Tensor:
    copy = value.detach().cpu()
    return nn.Parameter(copy, requires_grad=False) if isinstance(value, nn.Parameter) else copy


def _check(root: nn.Module) -> None:
    kind = type(root).__name__
    for name, part in root.named_modules():
        where = f"{kind}, layer {name}," if name else kind
        if isinstance(part, torch.jit.ScriptModule):
            raise BundleError(
                f"{where} is a TorchScript module, which holds no Python code to trace; pass the nn.Module that it was "
                "made from, or an ONNX file that torch.onnx.export(..., dynamo=False) makes of it"
            )
        if type(part).__module__.startswith("torch.ao.nn.") and ".quantized" in type(part).__module__:
            raise BundleError(
                f"{where} is quantised by torch ({type(part).__name__}), which ONNX cannot express; pass the float32 "
                'module, and precision="int8" with pictures to calibrate on'
            )
    for name, value in (*root.named_parameters(), *root.named_buffers()):
        if is_lazy(value) or value.device.type == "meta":
            raise BundleError(
                f"{kind}: {name} has no values yet ({'lazy' if is_lazy(value) else 'on the device meta'}); run the "
                "module on one image, load its weights, and export it then"
            )
    for name, value in root.named_parameters():
        if (value.is_floating_point() or value.is_complex()) and value.dtype != torch.float32:
            raise BundleError(
                f"{kind}: {name} is {str(value.dtype).removeprefix('torch.')}; expected float32: pass module.float() "
                "(precision='fp16' or 'bf16' halves the files)"
            )


def check_module(module: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Run `module` (at rest) on noisy images [3,C,H,W], twice, and on each alone: the logits must be the same.

    Raises `BundleError` where it fails, returns anything but a float32 tensor of that shape, is random, or mixes the
    images of a batch.
    """
    kind = type(module).__name__
    more = [torch.tensor(0.5)] if takes_sigma(module) else []
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, *input_shape, generator=generator) + 0.5 * torch.randn(3, *input_shape, generator=generator)
    x[1] *= 4  # an image that would spoil statistics of the batch
    together, again = (_logits(module, x, more) for _ in range(2))
    alone = torch.cat([_logits(module, x[i : i + 1], more) for i in range(3)])
    if not torch.isfinite(torch.cat([together, again, alone])).all():
        return  # parity says so
    scale = together.abs().amax(1, keepdim=True).clamp(min=1)
    random, mixed = (float(((other - together).abs() / scale).max()) for other in (again, alone))
    if random > ROWS:
        raise BundleError(
            f"{kind} gives other logits for the same images each time (by {random:.2g}): something in its forward is "
            "random, or changes its state; dropout and noise must follow module.eval()"
        )
    if mixed > ROWS:
        raise BundleError(
            f"{kind}: the logits of an image change by {mixed:.2g} with the other images of its batch; such votes "
            "prove nothing: compute each image on its own, without statistics of the batch"
        )


def _logits(module: nn.Module, x: torch.Tensor, more: list[torch.Tensor]) -> torch.Tensor:
    kind, shape = type(module).__name__, list(x.shape)
    try:
        with torch.no_grad():
            found: Any = module(x.clone(), *more)
    except Exception as error:  # whatever the module's own code raises
        if isinstance(error, TypeError) and "argument" in str(error):
            fix = "wrap it in a module whose forward takes the images alone, or images and sigma"
        else:
            fix = "it must take any batch; check input_shape, and that the module runs by itself"
        raise BundleError(
            f"{kind} fails on a float32 batch {shape}: {type(error).__name__}: {one_line(error)}; {fix}"
        ) from error
    if not isinstance(found, torch.Tensor):
        holds = f" of {', '.join(map(str, found))[:100]}" if isinstance(found, dict) else ""
        raise BundleError(
            f"{kind} returns a {type(found).__name__}{holds}; expected one tensor of logits [N,classes]: wrap the "
            "module in one whose forward returns that, e.g. `return self.inner(x).logits`"
        )
    if found.ndim != 2 or len(found) != len(x):
        raise BundleError(
            f"{kind} gives logits of shape {list(found.shape)} for a batch {shape}; expected [{len(x)},classes]: keep "
            "the batch first, e.g. with flatten(1) and without a bare squeeze()"
        )
    if found.dtype != torch.float32:
        raise BundleError(
            f"{kind} gives {str(found.dtype).removeprefix('torch.')} logits; expected float32: end its forward with "
            ".float()"
        )
    return found


class Normalised(nn.Module):
    """`inner` on (x - mean) / std, for x [N,C,H,W]."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, inner: nn.Module, mean: Statistics, std: Statistics) -> None:
        super().__init__()
        self.inner = inner
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor([float(v) for v in values]).view(1, -1, 1, 1))
        self.train(inner.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner((x - self.mean) / self.std)
        return logits


class NormalisedGivenSigma(Normalised):
    """The same for a network that is given the noise level."""

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        logits: torch.Tensor = self.inner((x - self.mean) / self.std, sigma)
        return logits


def normalised(module: nn.Module, mean: Statistics | None, std: Statistics | None) -> nn.Module:
    """`module` with (x - mean) / std in front. Raises `InputError`."""
    kind = NormalisedGivenSigma if takes_sigma(module) else Normalised
    return kind(unwrapped(module), *check_statistics(mean, std))
