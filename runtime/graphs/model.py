"""What an ONNX file says about itself, read without the onnx package and without running anything.

Weights stay where they are (a memory map): only their names, types, shapes and places are looked at.
Source of the field numbers: onnx/onnx.proto, IR version 13.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualsmooth.runtime.errors import BundleError
from dualsmooth.runtime.graphs.foreign_files import foreign
from dualsmooth.runtime.graphs.protobuf import (
    BYTES,
    FLOAT32,
    FLOAT64,
    INT,
    INT32,
    TEXT,
    Field,
    Message,
    Schema,
    WireError,
    decode,
    varint,
)


def _schema(text: str) -> Schema:
    """A schema from lines `Message: number name kind[*], …` (`*`: repeated)."""
    out: dict[str, dict[int, Field]] = {}
    for line in text.strip().splitlines():
        name, _, rest = line.strip().partition(":")
        for part in rest.split(","):
            number, label, kind = part.split()
            out.setdefault(name, {})[int(number)] = Field(label, kind.rstrip("*"), kind.endswith("*"))
    return out


ONNX = _schema(f"""
Model: 1 ir_version {INT}, 8 opset_import Opset*, 2 producer_name {TEXT}, 3 producer_version {TEXT}, 4 domain {TEXT}
Model: 5 model_version {INT}, 6 doc_string {TEXT}, 7 graph Graph, 14 metadata_props Entry*
Model: 20 training_info {BYTES}*, 25 functions {BYTES}*
Opset: 1 domain {TEXT}, 2 version {INT}
Entry: 1 key {TEXT}, 2 value {TEXT}
Graph: 1 node Node*, 2 name {TEXT}, 5 initializer Tensor*, 15 sparse_initializer {BYTES}*, 10 doc_string {TEXT}
Graph: 11 input Value*, 12 output Value*, 13 value_info Value*, 14 quantization_annotation {BYTES}*
Graph: 16 metadata_props Entry*
Node: 1 input {TEXT}*, 2 output {TEXT}*, 3 name {TEXT}, 4 op_type {TEXT}, 7 domain {TEXT}, 8 overload {TEXT}
Node: 5 attribute Attribute*, 6 doc_string {TEXT}, 9 metadata_props Entry*
Attribute: 1 name {TEXT}, 21 ref_attr_name {TEXT}, 13 doc_string {TEXT}, 20 type {INT32}, 2 f {FLOAT32}, 3 i {INT}
Attribute: 4 s {BYTES}, 5 t Tensor, 6 g Graph, 22 sparse_tensor {BYTES}, 14 tp {BYTES}, 7 floats {FLOAT32}*
Attribute: 8 ints {INT}*, 9 strings {BYTES}*, 10 tensors Tensor*, 11 graphs Graph*, 23 sparse_tensors {BYTES}*
Attribute: 15 type_protos {BYTES}*
Tensor: 1 dims {INT}*, 2 data_type {INT32}, 3 segment {BYTES}, 4 float_data {FLOAT32}*, 5 int32_data {BYTES}*
Tensor: 6 string_data {BYTES}*, 7 int64_data {BYTES}*, 8 name {TEXT}, 12 doc_string {TEXT}, 9 raw_data {BYTES}
Tensor: 13 external_data Entry*, 14 data_location {INT32}, 10 double_data {FLOAT64}*, 11 uint64_data {BYTES}*
Tensor: 16 metadata_props Entry*
Value: 1 name {TEXT}, 2 type Type, 3 doc_string {TEXT}, 4 metadata_props Entry*
Type: 1 tensor_type TensorType, 4 sequence_type {BYTES}, 5 map_type {BYTES}, 9 optional_type {BYTES}
Type: 8 sparse_tensor_type {BYTES}, 7 opaque_type {BYTES}, 6 denotation {TEXT}
TensorType: 1 elem_type {INT32}, 2 shape Shape
Shape: 1 dim Dim*
Dim: 1 dim_value {INT}, 2 dim_param {TEXT}, 3 denotation {TEXT}
""")

TYPES: dict[int, tuple[str, float]] = {
    1: ("float", 4), 2: ("uint8", 1), 3: ("int8", 1), 4: ("uint16", 2), 5: ("int16", 2), 6: ("int32", 4),
    7: ("int64", 8), 9: ("bool", 1), 10: ("float16", 2), 11: ("double", 8), 12: ("uint32", 4), 13: ("uint64", 8),
    16: ("bfloat16", 2), 21: ("uint4", 0.5), 22: ("int4", 0.5),
}  # fmt: skip
"""Element types of tensors: number in the file to name and bytes an element."""

MAX_FILE = (1 << 31) - 1
"""The largest message that protocol buffers allow; larger weights belong into external data."""

Dims = tuple[int | None, ...]
"""A declared shape; None where a size is dynamic or named."""


@dataclass(frozen=True)
class Tensor:
    """A constant: its type's number, shape, and either the bytes here or the place in another file."""

    name: str
    type: int
    dims: tuple[int, ...]
    raw: Message = field(repr=False, compare=False)

    @property
    def external(self) -> dict[str, str] | None:
        """Keys of the external place (location, offset, length); None where the data are in this file."""
        entries = self.raw.get("external_data", [])
        if not entries and self.raw.get("data_location", 0) == 0:
            return None
        return {e.get("key", ""): e.get("value", "") for e in entries}

    @property
    def bytes(self) -> int:
        """What the shape needs, in bytes."""
        return math.ceil(math.prod(self.dims) * TYPES[self.type][1])

    def values(self) -> npt.NDArray[np.generic] | None:
        """The numbers of a small tensor [dims] that is stored raw, as int64 or as float; None for any other."""
        kind = TYPES.get(self.type, ("", 0))[0]
        dtype = {"float": "<f4", "double": "<f8", "float16": "<f2", "bool": "?"}.get(kind, kind)
        raw = self.raw.get("raw_data")
        if math.prod(self.dims) > 4096 or self.external is not None:
            return None
        if raw is not None and kind not in ("", "bfloat16", "int4", "uint4"):
            return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape(self.dims)
        parts = b"".join(self.raw.get({"int64": "int64_data", "float": "float_data"}.get(kind, ""), []))
        found: npt.NDArray[Any] = np.frombuffer(parts, "<f4") if kind == "float" else _integers(parts)
        return found.reshape(self.dims) if parts and len(found) == math.prod(self.dims) else None


@dataclass(frozen=True)
class Node:
    """One operator: `attributes` maps names to messages of the schema."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Message] = field(repr=False)
    name: str = ""

    def integer(self, name: str, default: int) -> int:
        return int(self.attributes.get(name, {}).get("i", default))

    def integers(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        return tuple(self.attributes.get(name, {}).get("ints", default))

    def text(self, name: str, default: str) -> str:
        value = self.attributes.get(name, {}).get("s")
        return default if value is None else bytes(value).decode("utf-8", "replace")

    def tensors(self) -> Iterator[Tensor]:
        """Constants in the attributes."""
        for attribute in self.attributes.values():
            for raw in [*([attribute["t"]] if "t" in attribute else []), *attribute.get("tensors", [])]:
                yield _tensor(raw)

    def graphs(self) -> Iterator[Graph]:
        """Graphs in the attributes (branches of If, bodies of loops)."""
        for attribute in self.attributes.values():
            for raw in [*([attribute["g"]] if "g" in attribute else []), *attribute.get("graphs", [])]:
                yield _graph(raw)


@dataclass(frozen=True)
class Value:
    """A declared input, output or intermediate: element type (0 where it is no tensor) and shape (None: undeclared)."""

    name: str
    type: int
    dims: Dims | None


@dataclass(frozen=True)
class Graph:
    """Nodes in order, constants by name, and the declared ends."""

    nodes: tuple[Node, ...]
    constants: dict[str, Tensor]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    values: tuple[Value, ...]
    sparse: bool


@dataclass(frozen=True)
class Model:
    """A whole file: versions of the operator sets by domain, and the graph."""

    ir: int
    opsets: tuple[tuple[str, int], ...]
    graph: Graph
    functions: int
    training: bool
    producer: str

    def graphs(self) -> Iterator[Graph]:
        """The graph and all graphs inside of it."""
        waiting = [self.graph]
        while waiting:
            graph = waiting.pop()
            yield graph
            for node in graph.nodes:
                waiting.extend(node.graphs())


def read_model(path: str | Path) -> Model:
    """Read the structure of the ONNX file at `path`. Raises `BundleError` where it is none, or is not plain enough."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if what := foreign(path):
            raise BundleError(what)
        if not 0 < size <= MAX_FILE:
            raise BundleError(f"{path} has {size} bytes; expected an ONNX file of 1 to {MAX_FILE} bytes")
        with open(path, "rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {path} ({error}); export the bundle again") from error
    return parse_model(data, path)


def parse_model(data: memoryview | bytes, path: str | Path) -> Model:
    """As `read_model`, from the bytes of a file; `path` is for messages."""
    try:
        raw = decode(memoryview(data), ONNX, "Model")
        if "graph" not in raw:
            raise WireError("it holds no graph")
        return Model(
            ir=raw.get("ir_version", 0),
            opsets=tuple((o.get("domain", ""), o.get("version", 0)) for o in raw.get("opset_import", [])),
            graph=_graph(raw["graph"]),
            functions=len(raw.get("functions", [])),
            training="training_info" in raw,
            producer=f"{raw.get('producer_name', '')} {raw.get('producer_version', '')}".strip(),
        )
    except WireError as error:
        said = foreign(Path(path), guess=True)
        raise BundleError(said or f"{path} is not a plain ONNX file ({error}); export the bundle again") from error


def _graph(raw: Message) -> Graph:
    constants: dict[str, Tensor] = {}
    for item in raw.get("initializer", []):
        tensor = _tensor(item)
        if tensor.name in constants:
            raise WireError(f"the initializer {tensor.name[:40]!r} occurs twice")
        constants[tensor.name] = tensor
    nodes = []
    for item in raw.get("node", []):
        attributes: dict[str, Any] = {}
        for attribute in item.get("attribute", []):
            name = attribute.get("name", "")
            if name in attributes:
                raise WireError(f"a node has the attribute {name[:40]!r} twice")
            attributes[name] = attribute
        ends = tuple(item.get("input", [])), tuple(item.get("output", []))
        nodes.append(Node(item.get("op_type", ""), item.get("domain", ""), *ends, attributes, item.get("name", "")))
    return Graph(
        nodes=tuple(nodes),
        constants=constants,
        inputs=tuple(_value(v) for v in raw.get("input", [])),
        outputs=tuple(_value(v) for v in raw.get("output", [])),
        values=tuple(_value(v) for v in raw.get("value_info", [])),
        sparse="sparse_initializer" in raw,
    )


def _integers(data: bytes) -> npt.NDArray[np.int64]:
    """Packed 64-bit numbers."""
    found, at = [], 0
    while at < len(data):
        number, at = varint(memoryview(data), at)
        found.append(number - (1 << 64) if number >> 63 else number)
    return np.array(found, np.int64)


def _tensor(raw: Message) -> Tensor:
    return Tensor(raw.get("name", ""), raw.get("data_type", 0), tuple(raw.get("dims", [])), raw)


def _value(raw: Message) -> Value:
    kind = raw.get("type", {})
    tensor = kind.get("tensor_type")
    others = set(kind) - {"tensor_type", "denotation"}
    if tensor is None or others:
        return Value(raw.get("name", ""), 0, None)
    dims: Dims | None = None
    if "shape" in tensor:
        dims = tuple(_dim(d) for d in tensor["shape"].get("dim", []))
    return Value(raw.get("name", ""), tensor.get("elem_type", 0), dims)


def _dim(raw: Message) -> int | None:
    if "dim_value" in raw and "dim_param" in raw:
        raise WireError("a size is both a number and a name")
    value: int | None = raw.get("dim_value")
    return value
