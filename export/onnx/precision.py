"""Other precisions of an fp32 graph: half for accelerators, and static int8. Inputs and logits stay float32."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from dualsmooth.export.onnx.graph import INPUT, OUTPUT, strip
from dualsmooth.export.onnx.opsets.convert import NEWEST, convert
from dualsmooth.export.onnx.reading import constants_as_tensors
from dualsmooth.export.onnx.rewrites import check_same
from dualsmooth.runtime.errors import BundleError, one_line

HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_KEEP_FLOAT = {"Resize": (1, 2), "QuantizeLinear": (1,), "DequantizeLinear": (1,)}
"""Inputs that are float32 whatever the data are."""

Samples = Sequence[tuple[npt.NDArray[np.float32], float]]
"""Noisy batches [m,C,H,W] and the level of each: what a file will see once it is deployed."""


def to_half(model: onnx.ModelProto, precision: str, name: str = "the graph") -> onnx.ModelProto:
    """`model` with weights and arithmetic in `precision` (fp16 or bf16), between casts from and to float32.

    Raises `BundleError` where a weight does not fit into the smaller type.
    """
    kind = HALVES[precision]
    half = onnx.ModelProto()
    half.CopyFrom(model)
    constants_as_tensors(half.graph)
    if precision == "bf16" and half.opset_import[0].version < NEWEST:
        half = convert(half, NEWEST, name)
        check_same(model, half, f"bringing opset {model.opset_import[0].version} to {NEWEST} for bf16", name)
    graph = half.graph
    inputs = [value.name for value in graph.input]
    kept = {node.input[i] for node in graph.node for i in _KEEP_FLOAT.get(node.op_type, ()) if i < len(node.input)}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            tensor.CopyFrom(_halved(tensor, kind, precision))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                raise BundleError(f"{precision} of a graph with branches ({node.op_type}) is not supported; use fp32")
            makes = attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT
            if makes and node.output[0] not in kept:
                attribute.i = kind
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT and node.output[0] not in kept:
                attribute.t.CopyFrom(_halved(attribute.t, kind, precision))
        for i, name in enumerate(node.input):
            if name in inputs:
                node.input[i] = f"{name}_{precision}"
        for i, name in enumerate(node.output):
            if name == OUTPUT:
                node.output[i] = f"{OUTPUT}_{precision}"
    for node in graph.node:  # readers of the output, if any
        for i, name in enumerate(node.input):
            if name == OUTPUT:
                node.input[i] = f"{OUTPUT}_{precision}"
    casts = [helper.make_node("Cast", [name], [f"{name}_{precision}"], to=kind) for name in inputs]
    nodes = [*casts, *graph.node, helper.make_node("Cast", [f"{OUTPUT}_{precision}"], [OUTPUT], to=TensorProto.FLOAT)]
    del graph.node[:]
    graph.node.extend(nodes)
    return strip(half)


def _halved(tensor: TensorProto, kind: int, precision: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        small = values.astype(np.float16 if kind == TensorProto.FLOAT16 else ml_dtypes.bfloat16)
    if (np.isfinite(values) & ~np.isfinite(small.astype(np.float32))).any():
        raise BundleError(f"{tensor.name} holds values up to {np.abs(values).max():.3g}, too large for {precision}")
    dims = list(tensor.dims)
    return TensorProto(name=tensor.name, data_type=kind, dims=dims, raw_data=small.tobytes())


def emulated(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """`model` in float32 with every result rounded to `precision`: what a device with wide accumulators computes.

    ONNX Runtime's CPU provider has no bfloat16 arithmetic, so agreement is measured on this graph instead.
    """
    kind = HALVES[precision]
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(_halved(tensor, kind, precision)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes: list[onnx.NodeProto] = []
    floats = _float_tensors(wide)
    for node in wide.graph.node:
        again = onnx.NodeProto()
        again.CopyFrom(node)
        nodes.append(again)
        for i, name in enumerate(node.output):
            if name in floats:
                again.output[i] = f"{name}_wide"
                nodes.append(helper.make_node("Cast", [f"{name}_wide"], [f"{name}_small"], to=kind))
                nodes.append(helper.make_node("Cast", [f"{name}_small"], [name], to=TensorProto.FLOAT))
    del wide.graph.node[:]
    wide.graph.node.extend(nodes)
    return wide


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.output)
    return {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}


def to_int8(
    model: onnx.ModelProto,
    samples: Samples,
    *,
    ends: bool = False,
    reduce_range: bool = False,
    name: str = "the graph",
) -> onnx.ModelProto:
    """`model` quantised statically: QDQ, activations uint8, weights int8 per channel, ranges from `samples`.

    The first and the last layers stay in float32 unless `ends`: they cost little, and rounding noisy pixels or logits
    to 8 bits is what moves votes most. `reduce_range`: weights of 7 bits, whose sums do not saturate without VNNI. Only
    operators of the default domain come out. The same samples give the same bytes. Raises `BundleError`.
    """
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quant_pre_process, quantize_static
    except ImportError as error:
        raise BundleError(f"int8 needs {error.name}; pip install 'dualsmooth[export,cpu]'") from error
    large = model.ByteSize() > 1 << 30
    with tempfile.TemporaryDirectory(prefix="dualsmooth-int8-") as folder, _quiet():
        plain, ready, done = (Path(folder) / f"{name}.onnx" for name in ("plain", "ready", "done"))
        onnx.save(model, plain, save_as_external_data=large)
        try:
            quant_pre_process(plain, ready, skip_symbolic_shape=True, save_as_external_data=large)
            prepared = onnx.load(ready)
            check_same(model, prepared, "simplifying it for int8", name)
            quantize_static(
                ready,
                done,
                _Reader(samples, {value.name for value in model.graph.input}),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[] if ends else _ends(prepared.graph),
                use_external_data_format=large,
            )
            quantised = onnx.load(done)
        except BundleError:
            raise
        except Exception as error:
            raise BundleError(
                f"{name}: ONNX Runtime cannot quantise the graph ({one_line(error)}); use another precision"
            ) from error
    used = {node.domain for node in quantised.graph.node} | {""}
    imports = [entry for entry in quantised.opset_import if entry.domain in used]
    del quantised.opset_import[:]
    quantised.opset_import.extend(imports)
    if not any(node.op_type == "DequantizeLinear" for node in quantised.graph.node):
        raise BundleError(f"{name}: nothing in it could be quantised; use fp32")
    return strip(quantised)


def _ends(graph: onnx.GraphProto) -> list[str]:
    """Names of the layers that read the image and of those that make the logits, unless those are all there are."""
    layers = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
    near, names = {INPUT}, set()
    for node in graph.node:
        if near & set(node.input):
            if node in layers:
                names.add(node.name)
            else:
                near |= set(node.output)
    near = {OUTPUT}
    for node in reversed(graph.node):
        if near & set(node.output):
            if node in layers:
                names.add(node.name)
            else:
                near |= set(node.input)
    return sorted(names) if len(names) < len(layers) else []


class _Reader:
    """Feeds `samples` to the calibration, one batch at a time."""

    def __init__(self, samples: Samples, inputs: set[str]) -> None:
        self._samples = iter(samples)
        self._inputs = inputs

    def get_next(self) -> dict[str, Any] | None:
        item = next(self._samples, None)
        if item is None:
            return None
        feed = {INPUT: item[0], "sigma": np.asarray(item[1], np.float32)}
        return {name: value for name, value in feed.items() if name in self._inputs}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser from talking to the user, who can do nothing about it."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
