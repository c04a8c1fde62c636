"""Operators that move values about, or make them: the shape of the result, and its values, of which shapes are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dualsmooth.runtime.graphs.known import SMALL, Dims, View


def _kept(v: View) -> Dims:
    v.value = v.known(0)
    return v.dims(0)


def _flatten(v: View) -> Dims:
    x = v.dims(0)
    axis = v.node.integer("axis", 1) % (len(x) + 1)
    return (math.prod(x[:axis]), math.prod(x[axis:]))


def _reshape(v: View) -> Dims:
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


def _transpose(v: View) -> Dims:
    x = v.dims(0)
    return tuple(x[i] for i in v.node.integers("perm", tuple(range(len(x)))[::-1]))


def _concat(v: View) -> Dims:
    shapes = [v.dims(i) for i in range(len(v.node.inputs))]
    axis = v.node.integer("axis", 0) % len(shapes[0])
    parts = [v.known(i) for i in range(len(shapes))]
    if all(p is not None for p in parts):
        v.value = np.concatenate(parts, axis)
    return (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])


def _shape(v: View) -> Dims:
    dims = v.dims(0)[v.node.integer("start", 0) : v.node.attributes.get("end", {}).get("i")]
    v.value = np.array(dims, object)
    return (len(dims),)


def _size(v: View) -> Dims:
    v.value = np.array(math.prod(v.dims(0)), object)
    return ()


def _gather(v: View) -> Dims:
    x, picked = v.dims(0), v.dims(1)
    axis = v.node.integer("axis", 0) % len(x)
    if v.known(0) is not None and v.known(1) is not None:
        v.value = np.asarray(np.take(v.known(0), v.known(1).astype(np.int64), axis), object)
    return (*x[:axis], *picked, *x[axis + 1 :])


def _squeeze(v: View) -> Dims:
    x, axes = v.dims(0), v.numbers("axes", 1)
    drop = {a % len(x) for a in axes} if axes is not None else {i for i, d in enumerate(x) if d == 1}
    out = tuple(d for i, d in enumerate(x) if i not in drop)
    v.value = None if v.known(0) is None else np.reshape(v.known(0), out)
    return out


def _unsqueeze(v: View) -> Dims:
    x, axes = list(v.dims(0)), v.numbers("axes", 1) or ()
    rank = len(x) + len(axes)
    for axis in sorted(a % rank for a in axes):
        x.insert(axis, 1)
    v.value = None if v.known(0) is None else np.reshape(v.known(0), x)
    return tuple(x)


def _slice(v: View) -> Dims:
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


def _split(v: View) -> list[Dims]:
    x = v.dims(0)
    axis, parts = v.node.integer("axis", 0) % len(x), len(v.node.outputs)
    sizes = v.numbers("split", 1)
    if sizes is None:
        size = -(-x[axis] // parts)
        sizes = (size,) * (parts - 1) + (x[axis] - size * (parts - 1),)
    return [(*x[:axis], size, *x[axis + 1 :]) for size in sizes]


def _filled(v: View) -> Dims:
    out = tuple(int(n) for n in v.ints(0))
    constant = next(v.node.tensors(), None)
    value = constant.values() if constant is not None else None
    if value is not None and value.dtype.kind in "iu" and math.prod(out) <= SMALL:
        v.value = np.full(out, int(value.ravel()[0]), object)
    return out


def _expand(v: View) -> Dims:
    wanted = tuple(int(n) for n in v.ints(1))
    x = v.dims(0)
    rank = max(len(x), len(wanted))
    a, b = (1,) * (rank - len(x)) + x, (1,) * (rank - len(wanted)) + wanted
    return tuple(max(d, e) if 1 in (d, e) else d for d, e in zip(a, b, strict=True))


def _tile(v: View) -> Dims:
    return tuple(d * int(n) for d, n in zip(v.dims(0), v.ints(1), strict=True))


def _pad(v: View) -> Dims:
    x, pads = v.dims(0), [int(n) for n in v.ints(1)]
    axes = [int(n) % len(x) for n in v.ints(3)] if v.has(3) else list(range(len(x)))
    out = list(x)
    for i, axis in enumerate(axes):
        out[axis] += pads[i] + pads[i + len(axes)]
    return tuple(out)


def _resize(v: View) -> Dims:
    x = v.dims(0)
    axes = v.node.integers("axes", tuple(range(len(x))))
    out = list(x)
    for i, axis in enumerate(axes):
        out[axis] = int(v.ints(3)[i]) if v.has(3) else math.floor(x[axis] * float(v.ints(2)[i]))
    return tuple(out)


def _range(v: View) -> Dims:
    start, limit, step = (int(v.ints(i)) for i in range(3))
    numbers = range(start, limit, step)
    if len(numbers) <= SMALL:
        v.value = np.array(numbers, object)
    return (len(numbers),)


def _literal(v: View) -> Dims:
    attributes = v.node.attributes
    if "value" in attributes:
        tensor = next(v.node.tensors())
        v.out.constant(v.node.outputs[0], tensor)
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


def _space(v: View) -> Dims:
    n, c, h, w = v.dims(0)
    b = v.node.integer("blocksize", 1)
    return (n, c // b // b, h * b, w * b) if v.node.op == "DepthToSpace" else (n, c * b * b, h // b, w // b)


RULES: dict[str, Callable[[View], Any]] = {
    "Cast": _kept, "Identity": _kept, "Flatten": _flatten, "Reshape": _reshape, "Transpose": _transpose,
    "Concat": _concat, "Shape": _shape, "Size": _size, "Gather": _gather, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Slice": _slice, "Split": _split, "ConstantOfShape": _filled, "Expand": _expand, "Tile": _tile, "Pad": _pad,
    "Resize": _resize, "Range": _range, "Constant": _literal, "DepthToSpace": _space, "SpaceToDepth": _space,
}  # fmt: skip
