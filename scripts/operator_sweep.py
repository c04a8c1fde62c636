"""ONNX's own operator tests through the import of ONNX files: the section "Operators" of docs/parity.md.

Each single-operator model of the package onnx (`onnx.backend.test`) with a float image as its first input becomes a
classifier: its other inputs are constants, a fixed linear layer follows. It is imported at its own operator set and,
where it could be written like that, at each older one from 7 on. A file that ONNX Runtime runs is the same afterwards,
or refused. (Forms that are no more are in tests/export/onnx/test_opsets.py.)

    python scripts/operator_sweep.py --out docs/parity.md
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from frame import joined, sections
from onnx import helper, numpy_helper

from dualsmooth.export.onnx.files import load_onnx
from dualsmooth.export.onnx.rewrites import TOLERANCE, distance
from dualsmooth.export.onnx.sessions import opened, run
from dualsmooth.runtime.errors import DualSmoothError
from dualsmooth.runtime.files import write_atomically

TITLE = "Operators of ONNX's own tests"
KINDS = ("node", "pytorch-converted", "pytorch-operator")
Arrays = list[npt.NDArray[Any]]


def cases() -> Iterator[tuple[str, onnx.ModelProto, Arrays]]:
    """Name, model and inputs of each single-operator test whose first input is float [N,C,H,W]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        tests = [test for kind in KINDS for test in load_model_tests(kind=kind)]
    for test in tests:
        model, arrays = test.model, []
        if model is None and test.model_dir is not None:
            model = onnx.load(Path(test.model_dir) / "model.onnx")
            folder = Path(test.model_dir) / "test_data_set_0"
            for i in range(len(list(folder.glob("input_*.pb")))):
                tensor = onnx.TensorProto.FromString((folder / f"input_{i}.pb").read_bytes())
                arrays.append(numpy_helper.to_array(tensor))
        elif test.data_sets:
            arrays = [np.asarray(value) for value in test.data_sets[0][0] if isinstance(value, np.ndarray | np.generic)]
        if model is None:
            continue
        nodes = [node for node in model.graph.node if node.op_type != "Constant"]
        if len(nodes) == 1 and arrays and arrays[0].ndim == 4 and arrays[0].dtype == np.float32:
            yield test.name, model, arrays


def classifier(model: onnx.ModelProto, arrays: Arrays, opset: int, batch: int | str) -> onnx.ModelProto | None:
    """The test as a classifier of opset `opset`; None where that does not fit together."""
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    held = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in held]
    if len(inputs) != len(arrays) or not inputs:
        return None
    image, out = inputs[0].name, graph.output[0].name
    kept = [numpy_helper.from_array(array, v.name) for v, array in zip(inputs[1:], arrays[1:], strict=True)]
    graph.initializer.extend(kept)
    del graph.input[:], graph.output[:], graph.value_info[:]
    shape = arrays[0].shape[1:]
    graph.input.append(helper.make_tensor_value_info(image, onnx.TensorProto.FLOAT, [batch, *shape]))
    graph.output.append(helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [batch, 2]))
    graph.node.append(helper.make_node("Cast", [out], ["as_floats"], to=onnx.TensorProto.FLOAT))
    graph.node.append(helper.make_node("Flatten", ["as_floats"], ["flat"], axis=1))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = helper.find_min_ir_version_for(made.opset_import)
    width = _width(made, image, arrays[0])
    if width is None:
        return None
    weights = np.random.default_rng(0).standard_normal((width, 2)).astype(np.float32) / np.sqrt(width)
    made.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), "weights"))
    made.graph.node.append(helper.make_node("MatMul", ["flat", "weights"], ["scores"]))
    return made


def _width(model: onnx.ModelProto, image: str, array: npt.NDArray[Any]) -> int | None:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.append(helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, [None, None]))
    try:
        with opened(probe, "probe") as session:
            found = session.run(None, {image: array})[0]
    except Exception:  # whatever the engine says: it does not run this operator
        return None
    return int(found.shape[1]) if len(found) == len(array) else None


def older(model: onnx.ModelProto) -> Iterator[int]:
    """The operator sets from 7 to 17 in which the test's node is written as it is here."""
    (node,) = (n for n in model.graph.node if n.op_type != "Constant")
    for opset in range(7, min(model.opset_import[0].version, 18)):
        try:
            schema = onnx.defs.get_schema(node.op_type, opset)
        except onnx.defs.SchemaError:
            continue
        fits = {a.name for a in node.attribute} <= set(schema.attributes) and len(node.input) <= schema.max_input
        if fits and not schema.deprecated:
            yield opset


def sweep(limit: int | None = None) -> tuple[dict[str, Counter[str]], list[str]]:
    """Outcomes by operator (same, refused, not run by the engine, WRONG), and the names of what is wrong."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        for count, (name, model, arrays) in enumerate(cases()):
            if limit is not None and count >= limit:
                break
            op = next(n.op_type for n in model.graph.node if n.op_type != "Constant")
            own = model.opset_import[0].version
            for opset in (own, *older(model)):
                for batch in ("N", len(arrays[0])):
                    made = classifier(model, arrays, opset, batch)
                    outcome = "not run" if made is None else one(made, arrays[0], path)
                    outcomes[op][outcome.partition(":")[0]] += 1
                    if outcome.startswith("WRONG"):
                        wrong.append(f"{name} opset {opset} batch {batch} {outcome}")
    return outcomes, wrong


def one(made: onnx.ModelProto, array: npt.NDArray[Any], path: Path) -> str:
    """What import makes of one file, judged on the test's own input, which import never saw."""
    path.write_bytes(made.SerializeToString())
    image = made.graph.input[0].name
    try:
        model = load_onnx(path, array.shape[1:])
    except DualSmoothError as error:
        return f"refused: {error}"
    with opened(path, "case") as before, opened(model, "case") as after:
        worst = distance(before.run(None, {image: array})[0], run(after, array, 0.25, "case"))
    return "same" if worst <= TOLERANCE else f"WRONG: {worst:.2g}"


def section(outcomes: dict[str, Counter[str]]) -> str:
    """The table, and what it says."""
    total = sum(outcomes.values(), Counter[str]())
    lines = [
        f"Made by `scripts/operator_sweep.py` with onnx {onnx.__version__}: {sum(total.values())} files of "
        f"{len(outcomes)} operators, at their own operator set and at older ones from 7 on, with a dynamic and with a "
        "fixed batch. Same: import gives what the untouched file gives, on images that import never saw. Refused: one "
        "line, nothing written (mostly tests with other inputs for each row of their batch, which no constant serves). "
        "Not run: ONNX Runtime does not run the file itself, or it mixes up the rows.\n",
        "| operator | same | refused | not run | wrong |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    keys = ("same", "refused", "not run", "WRONG")
    for op, found in [*sorted(outcomes.items()), ("all", total)]:
        lines.append(f"| {op} | " + " | ".join(str(found[key]) for key in keys) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="page whose section is replaced")
    args = parser.parse_args()
    outcomes, wrong = sweep()
    text = section(outcomes)
    print(text, *wrong, sep="\n")
    if args.out:
        page = args.out.read_text()
        write_atomically(args.out, joined(page.partition("\n## ")[0], sections(page) | {TITLE: text}))


if __name__ == "__main__":
    main()
