"""What is known of the tensors of a graph while its nodes are walked, and how the rule of an operator sees a node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dualsmooth.runtime.graphs.model import Node, Tensor

Dims = tuple[int, ...]
SMALL = 4096
"""Integer tensors up to this many values are followed by value, since shapes are computed from them."""


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

    def constant(self, name: str, tensor: Tensor) -> None:
        """Learn a constant: its shape, and its values where shapes may be computed from them."""
        self.shapes[name] = tensor.dims
        values = tensor.values()
        if values is not None and values.dtype.kind in "iub":
            self.values[name] = values.astype(object)
        elif values is not None and values.size <= 8:
            self.values[name] = values


class View:
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
