"""ONNX bytes, through our own reader: what it accepts, the reader of the onnx package must read as the same network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import toys
from fuzz.harness import attempt, fuzz
from fuzz.mutations import damaged
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dualsmooth.runtime.graphs.admission import OPERATORS, check_model
from dualsmooth.runtime.graphs.model import Graph, parse_model
from dualsmooth.runtime.graphs.shapes import infer

PATH = Path("network.onnx")
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
N = helper.make_node


def model_of(
    nodes: list[Any], constants: dict[str, np.ndarray[Any, Any]], shape: list[Any] | None = None
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", *(shape or [1, 4, 4])])],
        [helper.make_tensor_value_info("logits", FLOAT, ["batch", 2])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def samples() -> list[bytes]:
    """A linear network, a convolutional one, one that computes shapes, a quantised one, one with a branch."""
    rng = np.random.default_rng(0)

    def weights(*dims: int) -> np.ndarray[Any, Any]:
        return rng.normal(size=dims).astype(np.float32)

    def ints(*values: int) -> np.ndarray[Any, Any]:
        return np.array(values, np.int64)

    last = [N("Gemm", ["f", "w", "b"], ["logits"])]
    convolution = [
        N("Conv", ["x", "k"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        N("Relu", ["c"], ["r"]),
        N("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        N("Flatten", ["p"], ["f"]),
        *last,
    ]
    shapes = [
        N("Shape", ["x"], ["s"], start=0, end=1),
        N("Concat", ["s", "rest"], ["t"], axis=0),
        N("Reshape", ["x", "t"], ["f"]),
        N("Slice", ["f", "zero", "many", "one"], ["u"]),
        N("Gemm", ["u", "w", "b"], ["logits"]),
    ]
    quantised = [
        N("QuantizeLinear", ["x", "scale", "point"], ["q"]),
        N("DequantizeLinear", ["q", "scale", "point"], ["d"]),
        N("Flatten", ["d"], ["f"]),
        *last,
    ]
    side = [
        helper.make_graph([N("Identity", ["f"], [n])], n, [], [helper.make_tensor_value_info(n, FLOAT, None)])
        for n in "ae"
    ]
    branch = [
        N("Flatten", ["x"], ["f"]),
        N("If", ["yes"], ["h"], then_branch=side[0], else_branch=side[1]),
        N("Gemm", ["h", "w", "b"], ["logits"]),
    ]
    two = weights(2)
    made = [
        model_of(convolution, {"k": weights(2, 1, 3, 3), "w": weights(8, 2), "b": two}),
        model_of(
            shapes,
            {"rest": ints(16), "zero": ints(0), "one": ints(1), "many": ints(1 << 40), "w": weights(16, 2), "b": two},
        ),
        model_of(quantised, {"scale": weights(), "point": np.array(3, np.uint8), "w": weights(16, 2), "b": two}),
        model_of(branch, {"yes": np.array(True), "w": weights(16, 2), "b": two}),
    ]
    return [m.SerializeToString() for m in made]


SAMPLES = samples()


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    """Any operators with any small attributes on anything, from `x` to `logits`."""
    constants = {
        "i0": np.array(draw(st.lists(INTS, max_size=5)), np.int64),
        "i1": np.array(draw(INTS), np.int64),
        "f0": np.zeros(draw(st.lists(st.integers(0, 5), max_size=4)), np.float32),
        "f1": np.array(0.5, np.float32),
        "w": np.zeros((16, 2), np.float32),
    }
    names, nodes = ["x", *constants, "", "nowhere"], list[Any]()
    for number in range(draw(st.integers(1, 6))):
        inputs = draw(st.lists(st.sampled_from(names), max_size=5))
        outputs = [f"n{number}", f"m{number}"][: draw(st.integers(0, 2))]
        nodes.append(N(draw(OPS), inputs, outputs, **draw(ATTRIBUTES)))
        names = [*outputs * 3, *names]
    nodes += [N("Flatten", [draw(st.sampled_from(names[:3]))], ["f"]), N("MatMul", ["f", "w"], ["logits"])]
    return bytes(model_of(nodes, constants).SerializeToString())


INTS = st.one_of(st.integers(-3, 6), st.sampled_from([1 << 20, 1 << 31, (1 << 63) - 1, -(1 << 63), 1 << 62]))
OPS = st.sampled_from(
    [*sorted(OPERATORS - {"If"}), *["Reshape", "Slice", "Tile", "Expand", "Pad", "Split", "Range"] * 4]
)
SETTINGS = [
    "axis",
    "axes",
    "kernel_shape",
    "strides",
    "pads",
    "dilations",
    "perm",
    "keepdims",
    "start",
    "end",
    "group",
    "blocksize",
    "allowzero",
    "ceil_mode",
    "split",
    "value_ints",
    "value_int",
    "output_shape",
    "transA",
]
ATTRIBUTES = st.one_of(
    st.dictionaries(st.sampled_from(SETTINGS), st.one_of(INTS, st.lists(INTS, min_size=1, max_size=4)), max_size=3),
    st.fixed_dictionaries(
        {"auto_pad": st.sampled_from(["VALID", "SAME_UPPER", "odd"]), "kernel_shape": st.just([2, 2])}
    ),
    st.fixed_dictionaries({"equation": st.sampled_from(["ij,jk->ik", "a->", "...", "ii->i", ",,", "ab,b->q"])}),
    st.just({"value": numpy_helper.from_array(np.array([7], np.int64), "v")}),
)


def same(ours: Graph, theirs: onnx.GraphProto) -> None:
    """Both readers see one graph."""
    assert [n.op for n in ours.nodes] == [n.op_type for n in theirs.node]
    assert [(n.domain, *n.inputs, *n.outputs) for n in ours.nodes] == [
        (n.domain, *n.input, *n.output) for n in theirs.node
    ]
    assert [list(n.attributes) for n in ours.nodes] == [[a.name for a in n.attribute] for n in theirs.node]
    tensors = [(t.name, t.data_type, tuple(t.dims)) for t in theirs.initializer]
    assert [(t.name, t.type, t.dims) for t in ours.constants.values()] == tensors
    for mine, other in ((ours.inputs, theirs.input), (ours.outputs, theirs.output), (ours.values, theirs.value_info)):
        assert [v.name for v in mine] == [v.name for v in other]
        for a, b in zip(mine, other, strict=True):
            kind = b.type.tensor_type
            assert a.type == kind.elem_type
            dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
            assert a.dims == (dims if kind.HasField("shape") else None)
    for node, proto in zip(ours.nodes, theirs.node, strict=True):
        inner = [g for a in proto.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]
        for mine_graph, other_graph in zip(node.graphs(), inner, strict=True):
            same(mine_graph, other_graph)


def check(data: bytes, shape: tuple[int, int, int]) -> None:
    model = attempt(parse_model, data, PATH)
    attempt(check_model, model, PATH, {}, shape, 2)
    theirs = onnx.ModelProto.FromString(data)
    assert len(theirs.functions) == len(theirs.training_info) == 0
    assert model.opsets == tuple((o.domain, o.version) for o in theirs.opset_import)
    same(model.graph, theirs.graph)
    infer(model.graph, {"x": (1, *shape), "sigma": ()})


@fuzz("ONNX files", share=0.5, data=damaged(lambda: SAMPLES))
def test_damaged_files_are_refused_or_read_as_the_onnx_package_reads_them(data: bytes) -> None:
    check(data, (1, 4, 4))


@fuzz("ONNX files", share=0.4, data=graphs())
def test_any_graph_is_checked_without_a_crash(data: bytes) -> None:
    check(data, (1, 4, 4))


@fuzz("ONNX files", share=0.1, data=st.binary(max_size=200))
def test_garbage_is_no_network(data: bytes) -> None:
    model = attempt(parse_model, data, PATH)
    attempt(check_model, model, PATH, {}, toys.SHAPE, 2)
    raise AssertionError("accepted")


def test_the_samples_are_good() -> None:
    """Otherwise the targets above show nothing."""
    for data in SAMPLES:
        check_model(parse_model(data, PATH), PATH, {}, (1, 4, 4), 2)
