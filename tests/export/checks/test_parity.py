from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from dualsmooth.export.checks.parity import TOLERANCE, check_parity
from dualsmooth.runtime.errors import BundleError

SHAPE = (1, 6, 6)


def tampered(data: bytes, amount: float) -> bytes:
    """The same graph with `amount` added to the first bias of the head."""
    model = onnx.load_from_string(data)
    bias = next(t for t in model.graph.initializer if t.name == "head.bias")
    values = numpy_helper.to_array(bias).copy()
    values[0] += amount
    bias.CopyFrom(numpy_helper.from_array(values, "head.bias"))
    return bytes(model.SerializeToString())


def test_equal_networks_pass(module: nn.Module, data: bytes) -> None:
    assert check_parity(module, data, SHAPE, 3, 1.0, "a.onnx") < 1e-5


def test_a_difference_is_refused(module: nn.Module, data: bytes) -> None:
    with pytest.raises(BundleError, match=r"a\.onnx: ONNX Runtime differs from PyTorch by 10 in logits"):
        check_parity(module, tampered(data, 10.0), SHAPE, 3, 1.0, "a.onnx")
    with pytest.raises(BundleError, match="differs"):
        check_parity(module, tampered(data, 200 * TOLERANCE), SHAPE, 3, 1.0, "a.onnx")


def test_other_weights_a_wrong_width_and_garbage_are_refused(
    module: nn.Module, data: bytes, probe: Callable[..., nn.Module]
) -> None:
    with pytest.raises(BundleError, match="differs"):
        check_parity(probe(3, seed=1), data, SHAPE, 3, 1.0, "a.onnx")
    with pytest.raises(BundleError, match=r"shape \[1, 3\] for a batch of 1; expected"):
        check_parity(module, data, SHAPE, 10, 1.0, "a.onnx")
    with pytest.raises(BundleError, match="cannot load"):
        check_parity(module, b"garbage", SHAPE, 3, 1.0, "a.onnx")


class Named(nn.Module):
    """As models of well-known libraries: a dictionary of one tensor, which the exporter takes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.inner(x)}


def test_a_module_that_returns_no_tensor_is_refused(module: nn.Module, data: bytes) -> None:
    with pytest.raises(BundleError, match="returns a dict; expected one tensor of logits"):
        check_parity(Named(module), data, SHAPE, 3, 1.0, "a.onnx")


def test_a_fixed_batch_is_refused(module: nn.Module, data: bytes) -> None:
    model = onnx.load_from_string(data)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(BundleError, match="fails on a batch of 3"):
        check_parity(module, bytes(model.SerializeToString()), SHAPE, 3, 1.0, "a.onnx")


def test_logits_that_are_not_finite_are_refused(
    module: nn.Module, data: bytes, probe: Callable[..., nn.Module]
) -> None:
    broken = probe(3)
    torch.nn.init.constant_(broken.head.bias, float("inf"))  # type: ignore[union-attr, arg-type]
    with pytest.raises(BundleError, match="the PyTorch module gives"):
        check_parity(broken, data, SHAPE, 3, 1.0, "a.onnx")
    with pytest.raises(BundleError, match="ONNX Runtime gives"):
        check_parity(module, tampered(data, float("inf")), SHAPE, 3, 1.0, "a.onnx")
