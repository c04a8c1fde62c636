"""Shapes of everything in an ONNX graph, and the multiply-adds of one pass, by walking the nodes in order.

No onnx package, and nothing is executed. What cannot be told (a shape that depends on values, an operator without a
rule here) is left unknown and named; it is never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from dualsmooth.runtime.graphs import elementwise, moving, multiplying
from dualsmooth.runtime.graphs.known import SMALL, Dims, Shapes, View
from dualsmooth.runtime.graphs.model import Graph, Node
from dualsmooth.runtime.graphs.multiplying import COUNTED

_RULES = {**elementwise.RULES, **moving.RULES, **multiplying.RULES}
"""The shape rule of each operator; those without one leave their outputs unknown."""


class TooLarge(Exception):
    """A tensor would have more values than the caller allows: its name and shape."""


def infer(graph: Graph, feeds: Mapping[str, Dims], *, limit: int = 1 << 62, outer: Shapes | None = None) -> Shapes:
    """Shapes and costs of `graph` for inputs of the shapes `feeds` (`outer`: what an enclosing graph knows).

    Raises `TooLarge` at the first result of more than `limit` values.
    """
    out = Shapes(dict(outer.shapes), dict(outer.values)) if outer is not None else Shapes()
    out.shapes.update(feeds)
    for name, tensor in graph.constants.items():
        out.constant(name, tensor)
    for node in graph.nodes:
        try:
            _step(node, out, limit)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            out.unknown += [node.op] if node.op in COUNTED else []
            for name in node.outputs:
                out.shapes[name] = None
                out.values.pop(name, None)
    return out


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
    if node.op in COUNTED and node.op not in _RULES:
        out.unknown.append(node.op)
    view = View(node, out)
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
