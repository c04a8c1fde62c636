"""Our reader of ONNX files sees what the onnx package sees, and refuses everything else with one error."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.errors import BundleError
from dualsmooth.runtime.graphs.admission import check_model, stored
from dualsmooth.runtime.graphs.model import ONNX, parse_model, read_model
from dualsmooth.runtime.graphs.protobuf import INT, TEXT, Field, WireError, decode, varint

SMALL = toys.steps_onnx(0, [0.2])


@pytest.mark.parametrize("path", sorted(SHIPPED_BUNDLE.glob("*.onnx")), ids=lambda p: p.name)
def test_it_reads_what_onnx_reads(path: Path) -> None:
    ours, theirs = read_model(path), onnx.load(path)
    assert ours.opsets == tuple((o.domain, o.version) for o in theirs.opset_import)
    assert ours.ir == theirs.ir_version
    assert [(n.op, n.domain, *n.inputs, *n.outputs) for n in ours.graph.nodes] == [
        (n.op_type, n.domain, *n.input, *n.output) for n in theirs.graph.node
    ]
    for tensor in theirs.graph.initializer:
        mine = ours.graph.constants[tensor.name]
        assert (mine.type, mine.dims) == (tensor.data_type, tuple(tensor.dims))
        assert stored(mine) == mine.bytes == numpy_helper.to_array(tensor).nbytes
    for mine, value in zip(ours.graph.inputs, theirs.graph.input, strict=True):
        dims = value.type.tensor_type.shape.dim
        assert mine.dims == tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
    for ours_node, node in zip(ours.graph.nodes, theirs.graph.node, strict=True):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.INTS:
                assert ours_node.integers(attribute.name) == tuple(attribute.ints)
            if attribute.type == onnx.AttributeProto.INT:
                assert ours_node.integer(attribute.name, 99) == attribute.i


def test_the_field_numbers_are_those_of_onnx() -> None:
    """Names, numbers and repetition of every field that is known here, against the schema that onnx carries."""
    theirs = {
        "Model": onnx.ModelProto, "Opset": onnx.OperatorSetIdProto, "Entry": onnx.StringStringEntryProto,
        "Graph": onnx.GraphProto, "Node": onnx.NodeProto, "Attribute": onnx.AttributeProto, "Tensor": onnx.TensorProto,
        "Value": onnx.ValueInfoProto, "Type": onnx.TypeProto, "TensorType": onnx.TypeProto.Tensor,
        "Shape": onnx.TensorShapeProto, "Dim": onnx.TensorShapeProto.Dimension,
    }  # fmt: skip
    assert set(theirs) == set(ONNX)
    for name, message in theirs.items():
        descriptor = {f.number: f.name for f in message.DESCRIPTOR.fields}
        assert {number: field.name for number, field in ONNX[name].items()}.items() <= descriptor.items()


@pytest.mark.parametrize("kind", ["raw", "float_data", "int64_data", "int32_data", "double_data"])
def test_data_are_counted_in_every_field_that_holds_them(kind: str) -> None:
    values = np.array([1, 300, -1, 2**20, 0, 7]).reshape(2, 3)
    number, dtype = {
        "raw": (TensorProto.FLOAT, np.float32), "float_data": (TensorProto.FLOAT, np.float32),
        "int64_data": (TensorProto.INT64, np.int64), "int32_data": (TensorProto.INT32, np.int32),
        "double_data": (TensorProto.DOUBLE, np.float64),
    }[kind]  # fmt: skip
    tensor = numpy_helper.from_array(values.astype(dtype), "more")
    if kind != "raw":
        tensor = helper.make_tensor("more", number, [2, 3], values.ravel().tolist())
    model = onnx.load_from_string(SMALL)
    model.graph.initializer.append(tensor)
    ours = parse_model(model.SerializeToString(), "a.onnx").graph.constants["more"]
    assert stored(ours) == ours.bytes == values.astype(dtype).nbytes
    assert check_model(parse_model(model.SerializeToString(), "a.onnx"), Path("a.onnx"), {}, toys.SHAPE, 2) == set()


def test_every_truncation_is_refused() -> None:
    """Cut anywhere, the file is no network any more; the reader says so and nothing else happens."""
    whole = check_model(parse_model(SMALL, "a.onnx"), Path("a.onnx"), {}, toys.SHAPE, 2)
    assert whole == set()
    for end in range(len(SMALL)):
        with pytest.raises(BundleError):
            check_model(parse_model(SMALL[:end], "a.onnx"), Path("a.onnx"), {}, toys.SHAPE, 2)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_flipped_bytes_raise_bundle_errors_only(data: st.DataObject) -> None:
    broken = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleError):
        check_model(parse_model(bytes(broken), "a.onnx"), Path("a.onnx"), {}, toys.SHAPE, 2)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_raises_bundle_errors_only(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        check_model(parse_model(data, "a.onnx"), Path("a.onnx"), {}, toys.SHAPE, 2)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_what_we_read_the_lenient_reader_reads_alike(data: bytes) -> None:
    """Whatever passes here means the same to protocol buffers: no file is checked as one network and run as another."""
    try:
        ours = decode(memoryview(data), ONNX, "Graph")
    except WireError:
        return
    theirs = onnx.GraphProto()
    try:
        theirs.ParseFromString(data)
    except Exception:  # stricter than we are: the engine refuses it
        return
    assert [n.get("op_type", "") for n in ours.get("node", [])] == [n.op_type for n in theirs.node]
    assert [n.get("domain", "") for n in ours.get("node", [])] == [n.domain for n in theirs.node]
    assert [list(t.get("dims", [])) for t in ours.get("initializer", [])] == [list(t.dims) for t in theirs.initializer]


TOY = {"M": {1: Field("n", INT), 2: Field("s", TEXT), 3: Field("m", "M"), 4: Field("many", INT, repeated=True)}}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", {}),
        (b"\x08\x96\x01", {"n": 150}),
        (b"\x08" + b"\xff" * 9 + b"\x01", {"n": -1}),
        (b"\x12\x02hi", {"s": "hi"}),
        (b"\x1a\x02\x08\x05", {"m": {"n": 5}}),
        (b"\x22\x02\x01\x02\x20\x03", {"many": [1, 2, 3]}),
    ],
)
def test_wire_format(data: bytes, expected: dict[str, Any]) -> None:
    assert decode(memoryview(data), TOY, "M") == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x08", "cut off"), (b"\x08\x80", "cut off"), (b"\x08" + b"\xff" * 10 + b"\x01", "64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "64 bits"), (b"\x08\x01\x08\x02", "twice"), (b"\x12\x05hi", "cut off"),
        (b"\x12\x01\xff", "UTF-8"), (b"\x0d\x01\x02\x03\x04", "wire type"), (b"\x0b\x0c", "wire type"),
        (b"\x0a\x01\x05", "wire type"), (b"\x00\x00", "field 0"), (b"\x48\x01", "field 9"),
        (b"\x88\x80\x80\x80\x80\x01\x05", "not known"),
    ],
)  # fmt: skip
def test_what_readers_disagree_about_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        decode(memoryview(data), TOY, "M")


def test_deep_nesting_is_refused() -> None:
    data = b""
    for _ in range(60):
        data = b"\x1a" + bytes([len(data)]) + data if len(data) < 128 else data
    with pytest.raises(WireError, match="nested"):
        decode(memoryview(data), TOY, "M")


def test_varints() -> None:
    for n in (0, 1, 127, 128, 300, 2**35, 2**64 - 1):
        data = b"".join(
            bytes([(n >> shift & 127) | (128 if n >> shift >= 128 else 0)])
            for shift in range(0, max(7, math.ceil(max(1, n.bit_length()) / 7) * 7), 7)
        )
        assert varint(memoryview(data), 0) == (n, len(data))
