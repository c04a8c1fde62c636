"""Operators that work value by value, or over whole axes: the shape of the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualsmooth.runtime.graphs.known import Dims, View, words


def _broadcast(v: View) -> Dims:
    shapes = [v.dims(i) for i in range(len(v.node.inputs)) if v.has(i)]
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    out = tuple(next((d for d in sizes if d != 1), 1) for sizes in zip(*padded, strict=True))
    if any(d not in (1, o) for s in padded for d, o in zip(s, out, strict=True)):
        raise ValueError("shapes do not fit")
    return out


def _arithmetic(operate: Callable[[Any, Any], Any]) -> Callable[[View], Dims]:
    def rule(v: View) -> Dims:
        a, b = v.known(0), v.known(1)
        if a is not None and b is not None and a.dtype == object == b.dtype:
            v.value = np.asarray(operate(a, b), object)
        return _broadcast(v)

    return rule


def _same(v: View) -> list[Dims | None]:
    return [v.dims(0)]


def _global_pool(v: View) -> Dims:
    x = v.dims(0)
    return (*x[:2], *(1,) * (len(x) - 2))


def _reduce(v: View) -> Dims:
    x, axes = v.dims(0), v.numbers("axes", 1)
    if not axes:
        axes = () if v.node.integer("noop_with_empty_axes", 0) else tuple(range(len(x)))
    drop = {a % len(x) for a in axes}
    if v.node.integer("keepdims", 1):
        return tuple(1 if i in drop else d for i, d in enumerate(x))
    return tuple(d for i, d in enumerate(x) if i not in drop)


def _arg(v: View) -> Dims:
    x = v.dims(0)
    axis = v.node.integer("axis", 0) % len(x)
    return (*x[:axis], *((1,) if v.node.integer("keepdims", 1) else ()), *x[axis + 1 :])


RULES: dict[str, Callable[[View], Any]] = {
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
}  # fmt: skip
