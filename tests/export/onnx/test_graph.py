from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from dualsmooth.export import to_onnx
from dualsmooth.runtime.errors import BundleError

SHAPE = (1, 6, 6)


@pytest.mark.parametrize("batch", [1, 3, 257])
def test_any_batch_gives_the_logits_of_torch(module: nn.Module, data: bytes, batch: int) -> None:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(batch).standard_normal((batch, *SHAPE), np.float32)
    module.eval()
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    module.train()
    np.testing.assert_allclose(session.run(["logits"], {"x": x})[0], expected, atol=1e-5)


def test_the_module_is_left_as_it_was(module: nn.Module, data: bytes) -> None:
    assert module.training


def test_the_same_weights_give_the_same_bytes_and_nothing_is_printed(
    data: bytes, probe: Callable[..., nn.Module], capfd: pytest.CaptureFixture[str]
) -> None:
    assert to_onnx(probe(3), SHAPE) == data
    assert capfd.readouterr() == ("", "")


def test_the_file_tells_nothing_of_this_machine(data: bytes) -> None:
    model = onnx.load_from_string(data)
    assert not model.metadata_props
    assert not model.doc_string
    assert not model.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    for trace in (b"site-packages", b".py", b"/home", b"/work", b"/tmp", b"Traceback"):
        assert trace not in data


def test_only_standard_operators_and_one_folded_graph(data: bytes) -> None:
    model = onnx.load_from_string(data)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert model.opset_import[0].version >= 18
    assert not model.functions
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
    onnx.checker.check_model(model, full_check=True)


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 36)[:, :3]


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) if float(x.sum()) > 0 else -x.flatten(1)


class TwoOutputs(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.flatten(1), x.flatten(1) + 1


@pytest.mark.parametrize("bad", [FixedBatch(), Branching(), TwoOutputs()])
def test_modules_that_cannot_serve_are_refused_with_one_line(bad: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError, match=type(bad).__name__) as caught:
        to_onnx(bad, SHAPE)
    assert "\n" not in str(caught.value)
    assert "step 1/3" not in str(caught.value)  # of the exporter; the cause is what helps
    assert capfd.readouterr() == ("", "")
