"""Modules in the wrappers and states in which they are handed over: exported as they compute, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from dualsmooth.export import to_onnx
from dualsmooth.export.onnx.modules import at_rest, unwrapped
from dualsmooth.runtime.errors import BundleError

SHAPE = (1, 6, 6)
Make = Callable[..., nn.Module]


class Calls(nn.Module):
    """Whatever `function` makes of the inner module and the images."""

    def __init__(self, inner: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.inner, x)


class Told(nn.Module):
    """Uses the noise level."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * (1 + sigma)  # type: ignore[no-any-return]


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile()
    return module


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compile": torch.compile,  # type: ignore[dict-item]
    "compile in place": compiled_in_place,
    "DataParallel, compiled": lambda m: torch.compile(nn.DataParallel(m)),  # type: ignore[return-value]
    "average": torch.optim.swa_utils.AveragedModel,
    "inside": lambda m: nn.Sequential(nn.Identity(), nn.DataParallel(m)),
    "compiled inside": lambda m: nn.Sequential(nn.Identity(), torch.compile(m)),  # type: ignore[arg-type]
}


def check(module: nn.Module, expected: nn.Module) -> None:
    session = onnxruntime.InferenceSession(to_onnx(module, SHAPE), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    feed = {"x": x, **({"sigma": np.asarray(0.5, np.float32)} if isinstance(expected, Told) else {})}
    with torch.no_grad():
        right = expected.eval()(*map(torch.as_tensor, feed.values())).numpy()
    np.testing.assert_allclose(session.run(["logits"], feed)[0], right, atol=1e-5)


def test_wrappers_are_taken_off(probe: Make) -> None:
    module = WRAPPED["DataParallel, compiled"](probe(3).train())
    check(module, probe(3))
    assert module.training
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_traced_has_no_wrapper_and_is_put_back(probe: Make, name: str) -> None:
    module = WRAPPED[name](probe(3).train())
    before = [type(part).__name__ for part in module.modules()]
    with at_rest(module) as network:
        kinds = {type(part).__name__ for part in network.modules()}
        assert not kinds & {"DataParallel", "OptimizedModule", "AveragedModel"}
        assert not any(part.training or part._compiled_call_impl for part in network.modules())
    assert [type(part).__name__ for part in module.modules()] == before
    assert all(part.training for part in module.modules())


def test_a_wrapped_module_is_told_the_noise_level(probe: Make) -> None:
    check(nn.DataParallel(Told(probe(3))), Told(probe(3)))


def test_distributed_modules_are_taken_out(probe: Make) -> None:
    inner = probe(3)
    wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = inner
    assert unwrapped(nn.DataParallel(wrapped)) is inner


def test_frozen_layers_stay_frozen_and_failures_leave_the_module_alone(probe: Make) -> None:
    module = probe(3).train()
    frozen = module.features[1].eval()  # type: ignore[index, operator]
    with at_rest(module):
        assert not module.training
    assert module.training
    assert not frozen.training
    with pytest.raises(ZeroDivisionError), at_rest(nn.DataParallel(module)):
        _ = 1 / 0
    assert module.training
    assert not frozen.training


def scripted(module: nn.Module) -> nn.Module:
    return torch.jit.script(module.eval())  # type: ignore[no-any-return]


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


class Quantised(nn.Linear):
    """Stands for the layers of torch.ao, which warn when they are made."""

    __module__ = "torch.ao.nn.quantized.dynamic.modules.linear"


class NamedSigma(nn.Module):
    def forward(self, x: torch.Tensor, sigma: str = "none") -> torch.Tensor:
        return x.flatten(1) if sigma == "none" else x.flatten(1) * 0


class LateSigma(nn.Module):
    def forward(self, x: torch.Tensor, scale: Any = None, sigma: Any = None) -> torch.Tensor:
        return x.flatten(1)


class Demanding(nn.Module):
    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) + labels


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x.flatten(1) + self.calls


REFUSED: dict[str, tuple[Callable[[Make], nn.Module], str]] = {
    "script": (lambda p: scripted(p(3)), "is a TorchScript module"),
    "script inside": (lambda p: nn.Sequential(nn.Identity(), scripted(p(3))), "layer 1, is a TorchScript module"),
    "quantised": (lambda p: nn.Sequential(nn.Flatten(), Quantised(36, 3)), "layer 1, is quantised by torch"),
    "lazy": (lambda p: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "1.weight has no values yet (lazy)"),
    "meta": (lambda p: on_meta(), "1.weight has no values yet (on the device meta)"),
    "half": (lambda p: p(3).half(), "is float16; expected float32: pass module.float()"),
    "double": (lambda p: p(3).double(), "is float64"),
    "complex": (lambda p: nn.Linear(3, 2, dtype=torch.complex64), "is complex64"),
    "sigma is text": (lambda p: NamedSigma(), "expected forward(x, sigma)"),
    "sigma is third": (lambda p: LateSigma(), "expected forward(x, sigma)"),
    "more arguments": (lambda p: Demanding(), "labels'; wrap it in a module whose forward takes the images alone"),
    "dictionary": (lambda p: Calls(p(3), lambda m, x: {"logits": m(x)}), "returns a dict of logits"),
    "tuple": (lambda p: Calls(p(3), lambda m, x: (m(x), x)), "returns a tuple; expected one tensor of logits"),
    "nothing": (lambda p: Calls(p(3), lambda m, x: None), "returns a NoneType"),
    "double logits": (lambda p: Calls(p(3), lambda m, x: m(x).double()), "gives float64 logits"),
    "squeezed": (lambda p: Calls(p(3), lambda m, x: m(x).squeeze()), "logits of shape [3] for a batch [1, 1, 6, 6]"),
    "a picture": (lambda p: Calls(p(3), lambda m, x: x), "logits of shape [3, 1, 6, 6]"),
    "noise": (lambda p: Calls(p(3), lambda m, x: m(x + torch.randn_like(x))), "other logits for the same images"),
    "dropout": (lambda p: Calls(p(3), lambda m, x: nn.functional.dropout(m(x))), "other logits for the same images"),
    "state": (lambda p: Counting(), "or changes its state"),
    "batch maximum": (lambda p: Calls(p(3), lambda m, x: m(x / x.amax())), "with the other images of its batch"),
    "statistics of the batch": (
        lambda p: nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), p(3)), "with the other images",
    ),
    "fixed batch": (lambda p: Calls(p(3), lambda m, x: m(x.view(3, 1, 6, 6))), "fails on a float32 batch [1, 1, 6, 6]"),
    "own error": (lambda p: Calls(p(3), lambda m, x: 1 / 0), "ZeroDivisionError: division by zero"),
    "no forward": (lambda p: nn.ModuleList([p(3)]), "missing the required \"forward\""),
    "another size": (lambda p: nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), "check input_shape"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch.jit's own
@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_before_anything_is_traced(
    case: str, probe: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("traced"))
    make, message = REFUSED[case]
    with pytest.raises(BundleError) as caught:
        to_onnx(make(probe), SHAPE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


UNTRACEABLE: dict[str, tuple[Callable[..., Any], str]] = {
    "branch": (
        lambda m, x: torch.stack([m(r[None])[0] if bool(r.sum() > 0) else -m(r[None])[0] for r in x]),
        "cannot be|fixes",
    ),
    "whole numbers": (lambda m, x: m(x.view(int(x.shape[0]), 1, 6, 6)), r"fixes its batch size to 2.*no int\(\)"),
    "counted": (lambda m, x: m(x) + 0 * x.nonzero().shape[0] if x.max() > -9 else m(x), "branches on"),
}


@pytest.mark.parametrize("case", UNTRACEABLE)
def test_what_cannot_be_traced_says_why(case: str, probe: Make) -> None:
    function, message = UNTRACEABLE[case]
    with pytest.raises(BundleError, match=message):
        to_onnx(Calls(probe(3), function), SHAPE)
