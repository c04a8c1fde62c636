"""Which ONNX graphs may be base models. Runs before ONNX Runtime sees a file, and needs no onnx package.

A base model is a fixed function of one noisy image (and of `sigma`). Refused is what can break that, or harm the
machine that loads it: randomness and loops in the graph, operators that look at the other rows of a batch, custom
operators, files beyond the bundle, declared sizes that the bytes do not bear out. docs/bundle.md is the specification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dualsmooth.runtime.errors import BundleError
from dualsmooth.runtime.graphs.known import words
from dualsmooth.runtime.graphs.model import TYPES, Graph, Model, Node, Tensor, Value, read_model
from dualsmooth.runtime.graphs.protobuf import WireError
from dualsmooth.runtime.graphs.rows import fault, own_fault
from dualsmooth.runtime.graphs.shapes import TooLarge, infer

MIN_OPSET = 13
DOMAINS = ("", "ai.onnx")
MAX_VALUES = 1 << 28
"""Most numbers in one tensor that a single image may give rise to (1 GiB of float32)."""

MAX_GRAPHS = 256

OPERATORS = frozenset(
    words("""
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BitShift
    BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu CenterCropPad Clip Col2Im Concat Constant
    ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DFT DeformConv DepthToSpace DequantizeLinear Div
    Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
    HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool MaxUnpool Mean Min Mish Mod
    Mul Neg NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round ScatterElements ScatterND
    Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub
    Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
    """)
)
"""Operators of the default domain that a base model may use."""


def check_file(
    path: Path, files: Mapping[str, str], input_shape: tuple[int, int, int], width: int
) -> set[str]:  # fmt: skip
    """Check the ONNX file at `path` (in the bundle's directory) against the manifest: `files` are those that it lists,
    `width` is the number of logits. Returns the names of the external data files that it uses. Nothing is executed.

    Raises `BundleError`.
    """
    model = read_model(path)
    try:
        return check_model(model, path, files, input_shape, width)
    except WireError as error:  # graphs inside of attributes are read as they are met
        raise BundleError(f"{path} is not a plain ONNX file ({error}); export the bundle again") from error


def check_model(
    model: Model, path: Path, files: Mapping[str, str], input_shape: tuple[int, int, int], width: int
) -> set[str]:
    """As `check_file`, for a file that is already read."""
    _check_header(model, path)
    _check_signature(model.graph, path, input_shape, width)
    external: set[str] = set()
    for count, graph in enumerate(model.graphs()):
        if count > MAX_GRAPHS:
            raise BundleError(f"{path} holds more than {MAX_GRAPHS} graphs inside of its graph; unroll its branches")
        if graph.sparse:
            raise BundleError(f"{path} holds sparse initializers; store them dense")
        for value in (*graph.inputs, *graph.outputs, *graph.values):
            if any(d is not None and not 0 <= d <= 1 << 31 for d in value.dims or ()):
                raise BundleError(f"{path}: {value.name[:40]!r} declares the shape {_text(value)}; sizes are 0 to 2^31")
        for tensor in graph.constants.values():
            external |= _check_tensor(tensor, path, files)
        for node in graph.nodes:
            _check_node(node, graph, path)
            for tensor in node.tensors():
                external |= _check_tensor(tensor, path, files)
    try:
        infer(model.graph, {"x": (1, *input_shape), "sigma": ()}, limit=MAX_VALUES)
    except TooLarge as error:
        name, dims = error.args
        raise BundleError(
            f"{path}: {name[:40]!r} would have the shape {str(list(dims)[:8])[:80]} for one image, more than "
            f"{MAX_VALUES} values"
        ) from None
    if said := fault(model.graph, "x", input_shape):
        raise BundleError(f"{path}: {said}")
    return external


def _check_header(model: Model, path: Path) -> None:
    foreign = sorted({domain for domain, _ in model.opsets} - set(DOMAINS))
    if foreign:
        raise BundleError(f"{path} imports operators of the domain {foreign[0][:60]!r}; only standard ONNX is allowed")
    if model.functions or model.training:
        what = "functions of its own" if model.functions else "a training graph"
        raise BundleError(f"{path} holds {what}; export the plain inference graph")
    versions = {version for _, version in model.opsets}
    if len(versions) != 1 or min(versions) < MIN_OPSET:
        raise BundleError(f"{path} imports the opsets {sorted(versions)[:5]}; expected one, at least {MIN_OPSET}")


def _check_signature(graph: Graph, path: Path, shape: tuple[int, int, int], width: int) -> None:
    """Inputs `x` float32 [N,C,H,W] and optionally scalar `sigma`, output `logits` float32 [N,width], N dynamic."""
    inputs, outputs = [v.name for v in graph.inputs], [v.name for v in graph.outputs]
    ends = (*graph.inputs, *graph.outputs)
    good = sorted(inputs) in (["x"], ["sigma", "x"]) and outputs == ["logits"] and all(v.type == 1 for v in ends)
    for value in ends:
        wanted = {"x": (None, *shape), "sigma": ()}.get(value.name, (None, width))
        good = good and _fits(value, wanted)
    if not good:
        found = ", ".join(f"{v.name[:40]} {TYPES.get(v.type, ('?',))[0]} {_text(v)}" for v in ends[:6])
        raise BundleError(
            f"{path} has {found}; expected x float32 [N,{','.join(map(str, shape))}], optionally scalar sigma, and "
            f"logits float32 [N,{width}], with dynamic N"
        )
    shadowed = sorted(set(inputs) & set(graph.constants))
    if shadowed:
        raise BundleError(f"{path} gives the input {shadowed[0]} a constant; inputs come from outside only")


def _fits(value: Value, wanted: tuple[int | None, ...]) -> bool:
    """Whether the declared shape is `wanted`; None must be dynamic, and a named inner size is checked by the engine."""
    dims = value.dims
    return (
        dims is not None
        and len(dims) == len(wanted)
        and all(d is None or d == w for d, w in zip(dims, wanted, strict=True))
    )


def _check_node(node: Node, graph: Graph, path: Path) -> None:
    op = node.op[:60]
    if node.domain not in DOMAINS:
        raise BundleError(f"{path} uses {op} of the domain {node.domain[:60]!r}; only standard ONNX is allowed")
    if said := own_fault(node, graph):
        raise BundleError(f"{path}: {said}")
    if op not in OPERATORS:
        raise BundleError(
            f"{path} uses the operator {op!r}, which base models may not; docs/bundle.md lists those that may"
        )
    for attribute in node.attributes.values():
        odd = set(attribute) & {"sparse_tensor", "sparse_tensors", "tp", "type_protos", "ref_attr_name"}
        if odd:
            raise BundleError(f"{path}: {op} has an attribute of the kind {sorted(odd)[0]}; export the bundle again")


def _check_tensor(tensor: Tensor, path: Path, files: Mapping[str, str]) -> set[str]:
    """The bytes that the shape needs are there, in this file or in one that the manifest lists."""
    where = f"{path}: the tensor {tensor.name[:40]!r}"
    if tensor.type not in TYPES:
        raise BundleError(f"{where} has the element type {tensor.type}; expected numbers")
    if any(d < 0 for d in tensor.dims) or len(tensor.dims) > 64:
        raise BundleError(f"{where} declares the shape {list(tensor.dims)[:8]}; sizes cannot be negative")
    need, place = tensor.bytes, tensor.external
    if place is None:
        if stored(tensor) != need or "segment" in tensor.raw or "string_data" in tensor.raw:
            raise BundleError(
                f"{where} declares the shape {list(tensor.dims)[:8]}, {need} bytes, but holds {stored(tensor)}"
            )
        return set()
    location = place.get("location", "")
    if location not in files or location.endswith(".onnx") or set(place) - {"location", "offset", "length", "checksum"}:
        raise BundleError(
            f"{where} lies in the file {location[:60]!r}, which the manifest does not list; keep data in the bundle"
        )
    if "raw_data" in tensor.raw or len(place) != len(tensor.raw["external_data"]):
        raise BundleError(f"{where} has two places for its data; export the bundle again")
    offset, length = _number(place.get("offset", "0")), _number(place.get("length", str(need)))
    size = (path.parent / location).stat().st_size
    if offset is None or length != need or offset + need > size:
        raise BundleError(
            f"{where} declares the shape {list(tensor.dims)[:8]}, {need} bytes, at offset "
            f"{place.get('offset', '0')[:20]} of {location}, which has {size}; export the bundle again"
        )
    return {location}


def stored(tensor: Tensor) -> int:
    """How many bytes of data a tensor holds in the file, in units of its element type; -1 where they are two kinds."""
    raw, size = tensor.raw, TYPES[tensor.type][1]
    kinds = [
        k for k in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data") if raw.get(k)
    ]
    if not kinds:
        return 0
    if len(kinds) > 1:
        return -1
    (kind,) = kinds
    if kind == "raw_data":
        return len(raw[kind])
    parts: list[memoryview] = raw[kind]
    if kind in ("float_data", "double_data"):
        width = 4 if kind == "float_data" else 8
        return int(sum(len(part) for part in parts) // width * size)
    ends = sum(int((np.frombuffer(part, np.uint8) < 128).sum()) for part in parts)  # a number ends with such a byte
    return math.ceil(ends * size) if size >= 1 else ends


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


def _text(value: Value) -> str:
    if value.dims is None:
        return "of no declared shape"
    return "[" + ",".join("?" if d is None else str(d) for d in value.dims[:8]) + "]"
