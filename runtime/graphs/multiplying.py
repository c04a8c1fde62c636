"""Operators that multiply and add, and others that move a window: the shape of the result, and the multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from dualsmooth.runtime.graphs.known import Dims, View, words

COUNTED = frozenset(
    words("""
    Attention Conv ConvInteger ConvTranspose DFT DeformConv Einsum GRU Gemm LSTM MatMul MatMulInteger QLinearConv
    QLinearMatMul RNN
    """)
)


def _window(v: View, sizes: Dims, kernel: Sequence[int], ceil: bool = False) -> Dims:
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


def _conv(weight: int) -> Callable[[View], Dims]:
    def rule(v: View) -> Dims:
        x, w = v.dims(0), v.dims(weight)
        out = (x[0], w[0], *_window(v, x[2:], v.node.integers("kernel_shape", w[2:])))
        v.cost = math.prod(out) * math.prod(w[1:])
        return out

    return rule


def _conv_transpose(v: View) -> Dims:
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


def _pool(v: View) -> Dims:
    x = v.dims(0)
    return (*x[:2], *_window(v, x[2:], v.node.integers("kernel_shape"), bool(v.node.integer("ceil_mode", 0))))


def _gemm(v: View) -> Dims:
    a, b = v.dims(0), v.dims(1)
    a = a[::-1] if v.node.integer("transA", 0) else a
    b = b[::-1] if v.node.integer("transB", 0) else b
    v.cost = a[0] * a[1] * b[1]
    return (a[0], b[1])


def _matmul(second: int) -> Callable[[View], Dims]:
    def rule(v: View) -> Dims:
        a, b = v.dims(0), v.dims(second)
        left, right = (a if len(a) > 1 else (1, *a)), (b if len(b) > 1 else (*b, 1))
        if left[-1] != right[-2]:
            raise ValueError("shapes do not fit")
        batch = np.broadcast_shapes(left[:-2], right[:-2])
        out = (*(int(d) for d in batch), left[-2], right[-1])
        v.cost = math.prod(out) * left[-1]
        return (*out[:-2], *((out[-2],) if len(a) > 1 else ()), *((out[-1],) if len(b) > 1 else ()))

    return rule


def _einsum(v: View) -> Dims:
    left, arrow, right = v.node.text("equation", "").replace(" ", "").partition("->")
    if not arrow or "." in left:
        raise ValueError("implicit")
    sizes: dict[str, int] = {}
    for i, term in enumerate(left.split(",")):
        sizes.update(zip(term, v.dims(i), strict=True))
    v.cost = math.prod(sizes.values())
    return tuple(sizes[label] for label in right)


RULES: dict[str, Callable[[View], Dims]] = {
    "Conv": _conv(1), "ConvInteger": _conv(1), "QLinearConv": _conv(3), "ConvTranspose": _conv_transpose,
    "Gemm": _gemm, "MatMul": _matmul(1), "MatMulInteger": _matmul(1), "QLinearMatMul": _matmul(3), "Einsum": _einsum,
    **dict.fromkeys(["AveragePool", "MaxPool", "LpPool"], _pool),
}  # fmt: skip
