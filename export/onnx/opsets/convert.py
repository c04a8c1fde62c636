"""A graph in a newer operator set, operator by operator.

ONNX's own converter changes what some operators compute (Resize before 11, Softmax before 13) and leaves branches
alone, so the forms that changed are listed here. Whoever converts runs both graphs on the same images afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

import onnx
from onnx import helper

from dualsmooth.export.onnx.opsets import attributes, broadcasting, inputs, layers
from dualsmooth.export.onnx.opsets.resize import resize
from dualsmooth.export.onnx.opsets.scope import Rule, Scope, Unknown
from dualsmooth.runtime.errors import BundleError

OLDEST = 13
"""The operator set that older graphs are brought to: the first one that the runtime admits."""

NEWEST = 22
"""The first one in which convolution and pooling take bfloat16."""


class Form(NamedTuple):
    """A form that operators have from the set `since` on, and the rule that gives it to nodes of older sets."""

    operators: tuple[str, ...]
    since: int
    rule: Rule


_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

CHANGES = (
    Form(("Concat",), 4, attributes.concat),
    Form(("Reshape",), 5, inputs.to_input("shape")),
    Form(("Cast",), 6, attributes.cast),
    Form(_ELEMENTWISE, 7, broadcasting.broadcast),
    Form(("PRelu",), 7, broadcasting.prelu),
    Form(("Gemm",), 7, attributes.gemm),
    Form(("BatchNormalization",), 9, layers.batch_norm),
    Form(("Slice",), 10, inputs.slice_),
    Form(("TopK",), 10, inputs.top_k),
    Form(("Upsample",), 10, resize),
    Form(("Resize",), 11, resize),
    Form(("Clip",), 11, inputs.clip),
    Form(("Pad",), 11, inputs.pad),
    Form(("Scatter",), 11, attributes.scatter),
    Form(("Dropout",), 12, layers.dropout),
    Form(("Softmax", "LogSoftmax", "Hardmax"), 13, layers.softmax),
    Form(("Squeeze", "Unsqueeze", "ReduceSum"), 13, inputs.to_input("axes")),
    Form(("Split",), 13, inputs.to_input("split")),
    Form(("RoiAlign",), 16, attributes.roi_align),
    Form(("Split",), 18, attributes.split),
    Form(tuple(f"Reduce{name}" for name in _REDUCTIONS), 18, inputs.to_input("axes")),
    Form(("GridSample",), 20, attributes.grid_sample),
    Form(("DFT",), 20, inputs.dft),
    Form(("GroupNormalization",), 21, layers.group_norm),
)
"""Every form that changed from the sets that ONNX Runtime reads to `NEWEST`, oldest first."""


def convert(model: onnx.ModelProto, version: int, name: str) -> onnx.ModelProto:
    """A copy of `model` in the newer operator set `version`, 13 or 22. Raises `BundleError` where it cannot."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    scope = Scope(out)
    try:
        for low, high in ((0, OLDEST), (OLDEST, NEWEST)):
            due = [form for form in CHANGES if low < form.since <= high and scope.source < form.since <= version]
            scope.rewrite(out.graph, {operator: form.rule for form in due for operator in form.operators})
    except Unknown as error:
        raise BundleError(
            f"{name}: {error} cannot be brought to opset {version}; export it again with opset {version} or newer"
        ) from None
    out.opset_import[0].version = version
    out.ir_version = max(out.ir_version, helper.find_min_ir_version_for(out.opset_import))
    return out
