"""Shapes of everything in an ONNX graph, and the multiply-adds of one pass, by walking the nodes in order.

No onnx package, and nothing is executed. What cannot be told (a shape that depends on values, an operator without a
rule here) is left unknown and named; it is never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dualsmooth.runtime.graphs.model import Graph, Node, Tensor

Dims = tuple[int, ...]
SMALL = 4096
"""Integer tensors up to this many values are followed by value, since shapes are computed from them."""


class TooLarge(Exception):
    """A tensor would have more values than the caller allows: its name and shape."""


def words(text: str) -> list[str]:
    """The words of a block of text: long lists of operators stay readable."""
    return text.split()


@dataclass
class Shapes:
    """`shapes`: of each tensor, None where unknown. `costs`: (operator, multiply-adds) of each node that has any.

    `unknown`: operators that multiply matrices, but whose cost could not be told.
    """

    shapes: dict[str, Dims | None] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    costs: list[tuple[str, int]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def multiply_adds(self) -> int:
        return sum(cost for _, cost in self.costs)


def infer(graph: Graph, feeds: Mapping[str, Dims], *, limit: int = 1 << 62, outer: Shapes | None = None) -> Shapes:
    """Shapes and costs of `graph` for inputs of the shapes `feeds` (`outer`: what an enclosing graph knows).

    Raises `TooLarge` at the first result of more than `limit` values.
    """
    out = Shapes(dict(outer.shapes), dict(outer.values)) if outer is not None else Shapes()
    out.shapes.update(feeds)
    for name, tensor in graph.constants.items():
        _constant(out, name, tensor)
    for node in graph.nodes:
        try:
            _step(node, out, limit)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            out.unknown += [node.op] if node.op in _COUNTED else []
            for name in node.outputs:
                out.shapes[name] = None
                out.values.pop(name, None)
    return out


def _constant(out: Shapes, name: str, tensor: Tensor) -> None:
    out.shapes[name] = tensor.dims
    values = tensor.values()
    if values is not None and values.dtype.kind in "iub":
        out.values[name] = values.astype(object)
    elif values is not None and values.size <= 8:
        out.values[name] = values


def _step(node: Node, out: Shapes, limit: int) -> None:
    if node.op == "If":
        branches = [infer(graph, {}, limit=limit, outer=out) for graph in node.graphs()]
        dearest = max(branches, key=Shapes.multiply_adds)
        out.costs += dearest.costs
        out.unknown += [op for branch in branches for op in branch.unknown]
        ends = [[b.shapes.get(v.name) for v in g.outputs] for b, g in zip(branches, node.graphs(), strict=True)]
        for i, name in enumerate(node.outputs):
            found = {shapes[i] for shapes in ends}
            out.shapes[name] = found.pop() if len(found) == 1 else None
        return
    if node.op in _COUNTED and node.op not in _RULES:
        out.unknown.append(node.op)
    view = _View(node, out)
    rule = _RULES.get(node.op)
    if rule is None:
        for name in node.outputs:
            out.shapes[name] = None
        return
    result = rule(view)
    shapes = result if isinstance(result, list) else [result]
    for name, dims in zip(node.outputs, [*shapes, *[None] * len(node.outputs)], strict=False):
        if dims is not None and any(type(d) is not int or d < 0 for d in dims):
            raise ValueError("a size is negative")
        if dims is not None and math.prod(dims) > limit:
            raise TooLarge(name, dims)
        out.shapes[name] = dims
    if view.value is not None and view.value.size <= SMALL and all(abs(n) >> 63 == 0 for n in view.value.flat):
        out.values[node.outputs[0]] = view.value
    if view.cost is not None:
        out.costs.append((node.op, view.cost))


class _View:
    """One node as a rule sees it. Unknown inputs raise LookupError, which leaves the outputs unknown."""

    def __init__(self, node: Node, out: Shapes) -> None:
        self.node, self.out = node, out
        self.value: Any = None
        self.cost: int | None = None

    def dims(self, i: int) -> Dims:
        dims = self.out.shapes.get(self.node.inputs[i])
        if dims is None:
            raise LookupError(self.node.inputs[i])
        return dims

    def has(self, i: int) -> bool:
        return i < len(self.node.inputs) and self.node.inputs[i] != ""

    def ints(self, i: int) -> Any:
        """The values of input i, as an object array."""
        return self.out.values[self.node.inputs[i]]

    def known(self, i: int) -> Any:
        return self.out.values.get(self.node.inputs[i]) if self.has(i) else None

    def numbers(self, attribute: str, i: int) -> tuple[int, ...] | None:
        """Integers of an attribute, or of input i in newer opsets; None where neither is there."""
        if attribute in self.node.attributes:
            return self.node.integers(attribute)
        return tuple(int(n) for n in np.ravel(self.ints(i))) if self.has(i) else None


def _broadcast(v: _View) -> Dims:
    shapes = [v.dims(i) for i in range(len(v.node.inputs)) if v.has(i)]
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    out = tuple(next((d for d in sizes if d != 1), 1) for sizes in zip(*padded, strict=True))
    if any(d not in (1, o) for s in padded for d, o in zip(s, out, strict=True)):
        raise ValueError("shapes do not fit")
    return out


def _arithmetic(operate: Callable[[Any, Any], Any]) -> Callable[[_View], Dims]:
    def rule(v: _View) -> Dims:
        a, b = v.known(0), v.known(1)
        if a is not None and b is not None and a.dtype == object == b.dtype:
            v.value = np.asarray(operate(a, b), object)
        return _broadcast(v)

    return rule


def _same(v: _View) -> list[Dims | None]:
    return [v.dims(0)]


def _kept(v: _View) -> Dims:
    v.value = v.known(0)
    return v.dims(0)


def _window(v: _View, sizes: Dims, kernel: Sequence[int], ceil: bool = False) -> Dims:
    """Output sizes of a convolution or pooling over `sizes`."""
    n = v.node
    rank = len(sizes)
    strides, dilations = n.integers("strides", (1,) * rank), n.integers("dilations", (1,) * rank)
    pads, auto = n.integers("pads", (0,) * 2 * rank), n.text("auto_pad", "NOTSET")
    out = []
    for i in range(rank):
        extent = (kernel[i] - 1) * dilations[i] + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            out.append(-(-sizes[i] // strides[i]))
            continue
        padding = pads[i] + pads[i + rank] if auto == "NOTSET" else 0
        steps = sizes[i] + padding - extent
        size = (-(-steps // strides[i]) if ceil else steps // strides[i]) + 1
        if ceil and (size - 1) * strides[i] >= sizes[i] + pads[i]:
            size -= 1  # no window may start in the padding behind
        out.append(size)
    return tuple(out)


def _conv(weight: int) -> Callable[[_View], Dims]:
    def rule(v: _View) -> Dims:
        x, w = v.dims(0), v.dims(weight)
        out = (x[0], w[0], *_window(v, x[2:], v.node.integers("kernel_shape", w[2:])))
        v.cost = math.prod(out) * math.prod(w[1:])
        return out

    return rule


def _conv_transpose(v: _View) -> Dims:
    x, w, n = v.dims(0), v.dims(1), v.node
    rank, kernel = len(x) - 2, n.integers("kernel_shape", w[2:])
    strides, dilations = n.integers("strides", (1,) * rank), n.integers("dilations", (1,) * rank)
    pads, more = n.integers("pads", (0,) * 2 * rank), n.integers("output_padding", (0,) * rank)
    if "output_shape" in n.attributes:
        sizes = n.integers("output_shape")[-rank:]
    elif n.text("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        sizes = tuple(x[2 + i] * strides[i] for i in range(rank))
    else:
        sizes = tuple(
            strides[i] * (x[2 + i] - 1) + more[i] + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + rank]
            for i in range(rank)
        )
    v.cost = math.prod(x) * math.prod(w[1:])
    return (x[0], w[1] * n.integer("group", 1), *sizes)


def _pool(v: _View) -> Dims:
    x = v.dims(0)
    return (*x[:2], *_window(v, x[2:], v.node.integers("kernel_shape"), bool(v.node.integer("ceil_mode", 0))))


def _global_pool(v: _View) -> Dims:
    x = v.dims(0)
    return (*x[:2], *(1,) * (len(x) - 2))


def _gemm(v: _View) -> Dims:
    a, b = v.dims(0), v.dims(1)
    a = a[::-1] if v.node.integer("transA", 0) else a
    b = b[::-1] if v.node.integer("transB", 0) else b
    v.cost = a[0] * a[1] * b[1]
    return (a[0], b[1])


def _matmul(second: int) -> Callable[[_View], Dims]:
    def rule(v: _View) -> Dims:
        a, b = v.dims(0), v.dims(second)
        left, right = (a if len(a) > 1 else (1, *a)), (b if len(b) > 1 else (*b, 1))
        if left[-1] != right[-2]:
            raise ValueError("shapes do not fit")
        batch = np.broadcast_shapes(left[:-2], right[:-2])
        out = (*(int(d) for d in batch), left[-2], right[-1])
        v.cost = math.prod(out) * left[-1]
        return (*out[:-2], *((out[-2],) if len(a) > 1 else ()), *((out[-1],) if len(b) > 1 else ()))

    return rule


def _einsum(v: _View) -> Dims:
    left, arrow, right = v.node.text("equation", "").replace(" ", "").partition("->")
    if not arrow or "." in left:
        raise ValueError("implicit")
    sizes: dict[str, int] = {}
    for i, term in enumerate(left.split(",")):
        sizes.update(zip(term, v.dims(i), strict=True))
    v.cost = math.prod(sizes.values())
    return tuple(sizes[label] for label in right)


def _flatten(v: _View) -> Dims:
    x = v.dims(0)
    axis = v.node.integer("axis", 1) % (len(x) + 1)
    return (math.prod(x[:axis]), math.prod(x[axis:]))


def _reshape(v: _View) -> Dims:
    x, wanted = v.dims(0), [int(n) for n in v.ints(1)]
    if not v.node.integer("allowzero", 0):
        wanted = [x[i] if n == 0 else n for i, n in enumerate(wanted)]
    if -1 in wanted:
        rest = -math.prod(wanted)
        wanted[wanted.index(-1)] = math.prod(x) // rest
    if math.prod(wanted) != math.prod(x):
        raise ValueError("shapes do not fit")
    if v.known(0) is not None:
        v.value = np.reshape(v.known(0), wanted)
    return tuple(wanted)


def _transpose(v: _View) -> Dims:
    x = v.dims(0)
    return tuple(x[i] for i in v.node.integers("perm", tuple(range(len(x)))[::-1]))


def _concat(v: _View) -> Dims:
    shapes = [v.dims(i) for i in range(len(v.node.inputs))]
    axis = v.node.integer("axis", 0) % len(shapes[0])
    parts = [v.known(i) for i in range(len(shapes))]
    if all(p is not None for p in parts):
        v.value = np.concatenate(parts, axis)
    return (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])


def _shape(v: _View) -> Dims:
    dims = v.dims(0)[v.node.integer("start", 0) : v.node.attributes.get("end", {}).get("i")]
    v.value = np.array(dims, object)
    return (len(dims),)


def _size(v: _View) -> Dims:
    v.value = np.array(math.prod(v.dims(0)), object)
    return ()


def _gather(v: _View) -> Dims:
    x, picked = v.dims(0), v.dims(1)
    axis = v.node.integer("axis", 0) % len(x)
    if v.known(0) is not None and v.known(1) is not None:
        v.value = np.asarray(np.take(v.known(0), v.known(1).astype(np.int64), axis), object)
    return (*x[:axis], *picked, *x[axis + 1 :])


def _squeeze(v: _View) -> Dims:
    x, axes = v.dims(0), v.numbers("axes", 1)
    drop = {a % len(x) for a in axes} if axes is not None else {i for i, d in enumerate(x) if d == 1}
    out = tuple(d for i, d in enumerate(x) if i not in drop)
    v.value = None if v.known(0) is None else np.reshape(v.known(0), out)
    return out


def _unsqueeze(v: _View) -> Dims:
    x, axes = list(v.dims(0)), v.numbers("axes", 1) or ()
    rank = len(x) + len(axes)
    for axis in sorted(a % rank for a in axes):
        x.insert(axis, 1)
    v.value = None if v.known(0) is None else np.reshape(v.known(0), x)
    return tuple(x)


def _slice(v: _View) -> Dims:
    x = list(v.dims(0))
    starts, ends = (tuple(int(n) for n in v.ints(i)) for i in (1, 2))
    axes = tuple(int(n) for n in v.ints(3)) if v.has(3) else tuple(range(len(starts)))
    steps = tuple(int(n) for n in v.ints(4)) if v.has(4) else (1,) * len(starts)
    cuts = [slice(None)] * len(x)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        cuts[axis % len(x)] = slice(start, end if abs(end) < 1 << 60 or step > 0 else None, step)
    if v.known(0) is not None:
        v.value = v.known(0)[tuple(cuts)]
    return tuple(len(range(*cut.indices(d))) for cut, d in zip(cuts, x, strict=True))


def _split(v: _View) -> list[Dims]:
    x = v.dims(0)
    axis, parts = v.node.integer("axis", 0) % len(x), len(v.node.outputs)
    sizes = v.numbers("split", 1)
    if sizes is None:
        size = -(-x[axis] // parts)
        sizes = (size,) * (parts - 1) + (x[axis] - size * (parts - 1),)
    return [(*x[:axis], size, *x[axis + 1 :]) for size in sizes]


def _reduce(v: _View) -> Dims:
    x, axes = v.dims(0), v.numbers("axes", 1)
    if not axes:
        axes = () if v.node.integer("noop_with_empty_axes", 0) else tuple(range(len(x)))
    drop = {a % len(x) for a in axes}
    if v.node.integer("keepdims", 1):
        return tuple(1 if i in drop else d for i, d in enumerate(x))
    return tuple(d for i, d in enumerate(x) if i not in drop)


def _arg(v: _View) -> Dims:
    x = v.dims(0)
    axis = v.node.integer("axis", 0) % len(x)
    return (*x[:axis], *((1,) if v.node.integer("keepdims", 1) else ()), *x[axis + 1 :])


def _filled(v: _View) -> Dims:
    out = tuple(int(n) for n in v.ints(0))
    constant = next(v.node.tensors(), None)
    value = constant.values() if constant is not None else None
    if value is not None and value.dtype.kind in "iu" and math.prod(out) <= SMALL:
        v.value = np.full(out, int(value.ravel()[0]), object)
    return out


def _expand(v: _View) -> Dims:
    wanted = tuple(int(n) for n in v.ints(1))
    x = v.dims(0)
    rank = max(len(x), len(wanted))
    a, b = (1,) * (rank - len(x)) + x, (1,) * (rank - len(wanted)) + wanted
    return tuple(max(d, e) if 1 in (d, e) else d for d, e in zip(a, b, strict=True))


def _tile(v: _View) -> Dims:
    return tuple(d * int(n) for d, n in zip(v.dims(0), v.ints(1), strict=True))


def _pad(v: _View) -> Dims:
    x, pads = v.dims(0), [int(n) for n in v.ints(1)]
    axes = [int(n) % len(x) for n in v.ints(3)] if v.has(3) else list(range(len(x)))
    out = list(x)
    for i, axis in enumerate(axes):
        out[axis] += pads[i] + pads[i + len(axes)]
    return tuple(out)


def _resize(v: _View) -> Dims:
    x = v.dims(0)
    axes = v.node.integers("axes", tuple(range(len(x))))
    out = list(x)
    for i, axis in enumerate(axes):
        out[axis] = int(v.ints(3)[i]) if v.has(3) else math.floor(x[axis] * float(v.ints(2)[i]))
    return tuple(out)


def _range(v: _View) -> Dims:
    start, limit, step = (int(v.ints(i)) for i in range(3))
    numbers = range(start, limit, step)
    if len(numbers) <= SMALL:
        v.value = np.array(numbers, object)
    return (len(numbers),)


def _literal(v: _View) -> Dims:
    attributes = v.node.attributes
    if "value" in attributes:
        tensor = next(v.node.tensors())
        _constant(v.out, v.node.outputs[0], tensor)
        v.value = v.out.values.get(v.node.outputs[0])
        return tensor.dims
    if "value_ints" in attributes:
        v.value = np.array(v.node.integers("value_ints"), object)
        return (len(v.value),)
    if "value_int" in attributes:
        v.value = np.array(v.node.integer("value_int", 0), object)
        return ()
    if "value_floats" in attributes:
        return (sum(len(part) for part in attributes["value_floats"].get("floats", [])) // 4,)
    return ()


def _space(v: _View) -> Dims:
    n, c, h, w = v.dims(0)
    b = v.node.integer("blocksize", 1)
    return (n, c // b // b, h * b, w * b) if v.node.op == "DepthToSpace" else (n, c * b * b, h // b, w // b)


_COUNTED = frozenset(
    words("""
    Attention Conv ConvInteger ConvTranspose DFT DeformConv Einsum GRU Gemm LSTM MatMul MatMulInteger QLinearConv
    QLinearMatMul RNN
    """)
)

_RULES: dict[str, Callable[[_View], Any]] = {
    **dict.fromkeys(
        words("""
    Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization BitwiseNot CastLike Ceil Celu Clip Cos Cosh CumSum
    DequantizeLinear Elu Erf Exp Floor Gelu GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization
    IsInf IsNaN LRN LayerNormalization LeakyRelu Log LogSoftmax LpNormalization Mish Neg Not QuantizeLinear
    RMSNormalization Reciprocal Relu Round ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax
    Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu Dropout RotaryEmbedding
    """),
        _same,
    ),
    **dict.fromkeys(
        words("""
    And BitwiseAnd BitwiseOr BitwiseXor Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Or PRelu Pow
    Sum Where Xor
    """),
        _broadcast,
    ),
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], _global_pool),
    **dict.fromkeys(["AveragePool", "MaxPool", "LpPool"], _pool),
    **dict.fromkeys(["DepthToSpace", "SpaceToDepth"], _space),
    **dict.fromkeys(["ArgMax", "ArgMin"], _arg),
    **dict.fromkeys(
        words("""
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare
    """),
        _reduce,
    ),
    "Add": _arithmetic(lambda a, b: a + b), "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(lambda a, b: a * b), "Div": _arithmetic(lambda a, b: a // b),
    "Cast": _kept, "Identity": _kept, "Conv": _conv(1), "ConvInteger": _conv(1), "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _matmul(1), "MatMulInteger": _matmul(1),
    "QLinearMatMul": _matmul(3), "Einsum": _einsum, "Flatten": _flatten, "Reshape": _reshape, "Transpose": _transpose,
    "Concat": _concat, "Shape": _shape, "Size": _size, "Gather": _gather, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Slice": _slice, "Split": _split, "ConstantOfShape": _filled, "Expand": _expand, "Tile": _tile, "Pad": _pad,
    "Resize": _resize, "Range": _range, "Constant": _literal,
}  # fmt: skip
"""The shape rule of each operator; those without one leave their outputs unknown."""
