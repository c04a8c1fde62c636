"""Operators by which a network draws random numbers or mixes the images of a batch, named before anything is run.

Which axis of a tensor holds the batch is seen from its shape at two batch sizes: an axis whose size differs does. Where
a shape cannot be told, nothing is named, and the trials that compare rows decide.
"""

from __future__ import annotations

from collections.abc import Iterator

from dualsmooth.runtime.graphs.known import Dims, Shapes, words
from dualsmooth.runtime.graphs.model import Graph, Node
from dualsmooth.runtime.graphs.shapes import TooLarge, infer

RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)
DYNAMIC = frozenset(["DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "DynamicQuantizeGRU"])
"""Dynamic quantisation, ONNX Runtime's own operators included: the scale is that of all images together."""
MIXING = {
    **dict.fromkeys(DYNAMIC, "dynamic quantisation: its scale depends on the whole batch; quantise statically (QDQ)"),
    "MeanVarianceNormalization": "it averages over the batch; use LayerNormalization or fixed constants",
    "Unique": "its result depends on the whole batch",
    "NonMaxSuppression": "its result depends on the whole batch; pass the classifier alone",
    **dict.fromkeys(
        words("""
    SequenceConstruct SequenceAt SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence
    ConcatFromSequence
    """),
        "sequences of images, whose rows nobody can follow; export without lists of tensors",
    ),
    "Compress": "it drops rows of the batch by their values",
}
"""Operators by which one row of a batch may change the vote of another: the votes would not be independent."""

_ONE_AXIS = {
    "Softmax": -1,
    "LogSoftmax": -1,
    "Hardmax": -1,
    "ArgMax": 0,
    "ArgMin": 0,
    "TopK": -1,
    "LpNormalization": -1,
}
"""Operators that look along one axis, and their default; CumSum has it as an input."""


def fault(graph: Graph, image: str, shape: tuple[int, int, int]) -> str:
    """What the first node does that no base model may, with its operator and name; empty where nothing is seen.

    `image` is the input [N,C,H,W], of `shape` [C,H,W].
    """
    for node in _all_nodes(graph):
        if said := own_fault(node, graph):
            return said
    known: list[Shapes] = []
    for rows in (2, 3):
        feeds = {value.name: tuple(d or 1 for d in value.dims or ()) for value in graph.inputs}
        try:
            known.append(infer(graph, {**feeds, image: (rows, *shape)}, limit=1 << 40))
        except TooLarge:
            return ""
    seen = {image}  # what depends on the image's values, not on its shape alone
    for node in graph.nodes:
        if node.op in ("Shape", "Size") or not seen & set(node.inputs):
            continue
        seen.update(node.outputs)
        if said := _mixes(node, *known):
            return f"{label(node)} {said}"
    return ""


def own_fault(node: Node, graph: Graph) -> str:
    """As `fault`, as far as the node itself tells."""
    if node.op in RANDOM or (node.op == "Dropout" and _trains(node, graph)):
        return f"{label(node)} draws random numbers inside the graph; noise is an input of the network, remove it"
    if node.op == "BatchNormalization" and _takes_statistics(node):
        return f"{label(node)} normalises by the statistics of the batch; export in eval mode"
    if node.op in MIXING:
        return f"{label(node)} is not allowed: {MIXING[node.op]}"
    return ""


def label(node: Node) -> str:
    """The operator and the node's name (or what it makes)."""
    name = node.name or next((output for output in node.outputs if output), "")
    return f"the operator {node.op[:60]} (node {name[:60]!r})"


def _all_nodes(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        yield node
        for inner in node.graphs():
            yield from _all_nodes(inner)


def _takes_statistics(node: Node) -> bool:
    return bool(node.integer("training_mode", 0)) or len([output for output in node.outputs if output]) > 1


def _trains(node: Node, graph: Graph) -> bool:
    """Whether a Dropout may drop: its third input is not a constant false of the same graph."""
    if node.integer("is_test", 1) == 0:  # opset 6 and before
        return True
    if len(node.inputs) < 3 or not node.inputs[2]:
        return False
    constant = graph.constants.get(node.inputs[2])
    literal = next((n for n in graph.nodes if node.inputs[2] in n.outputs and n.op == "Constant"), None)
    if constant is None and literal is not None:
        constant = next(literal.tensors(), None)
    values = constant.values() if constant is not None else None
    return values is None or bool(values.any())


def _mixes(node: Node, two: Shapes, three: Shapes) -> str:
    """How the node looks at other rows, for shapes at batches of two and of three."""
    name = node.inputs[0] if node.inputs else ""
    a, b = two.shapes.get(name), three.shapes.get(name)
    if a is None or b is None or len(a) != len(b):
        return ""
    batch = {i for i, (m, n) in enumerate(zip(a, b, strict=True)) if m != n}
    if not batch:
        return ""
    if node.op == "Squeeze" and "axes" not in node.attributes and len(node.inputs) < 2:
        return "drops the batch axis of a batch of one (Squeeze without axes); name the axes to squeeze"
    if node.op == "Flatten" and node.integer("axis", 1) == 0:
        return "puts all images of a batch into one row (axis 0); flatten from axis 1"
    if batch & _looked_along(node, two, a):
        axes = ", ".join(map(str, sorted(batch & _looked_along(node, two, a))))
        return f"mixes the images of a batch: it works along the batch axis (axis {axes}); use other axes"
    return ""


def _looked_along(node: Node, known: Shapes, dims: Dims) -> set[int]:
    """Axes along which each result depends on all values."""
    rank = len(dims)
    if node.op.startswith("Reduce"):
        return _reduced(node, known, rank)
    if node.op in _ONE_AXIS:
        return {node.integer("axis", _ONE_AXIS[node.op]) % rank}
    if node.op == "CumSum":
        axis = known.values.get(node.inputs[1])
        return set() if axis is None else {int(axis.ravel()[0]) % rank}
    if node.op in ("LayerNormalization", "RMSNormalization"):
        return set(range(node.integer("axis", -1) % rank, rank))
    if node.op in ("InstanceNormalization", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        return set(range(2, rank))
    if node.op == "GroupNormalization":
        return set(range(1, rank))
    return set()


def _reduced(node: Node, known: Shapes, rank: int) -> set[int]:
    if "axes" in node.attributes:
        axes: list[int] | None = list(node.integers("axes"))
    elif len(node.inputs) > 1 and node.inputs[1]:
        values = known.values.get(node.inputs[1])
        axes = None if values is None else [int(n) for n in values.ravel()]
        if axes is None:
            return set()
    else:
        axes = None
    if not axes:
        return set() if node.integer("noop_with_empty_axes", 0) else set(range(rank))
    return {axis % rank for axis in axes}
