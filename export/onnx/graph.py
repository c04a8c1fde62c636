"""A PyTorch module to the bytes of one ONNX file that carries nothing of the machine it was made on."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import onnx
import torch
from torch import nn

from dualsmooth.export.onnx.modules import at_rest, check_module, takes_sigma
from dualsmooth.runtime.errors import BundleError, one_line

OPSET = 20
INPUT, OUTPUT, SIGMA = "x", "logits", "sigma"


def to_onnx(module: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    """As `to_model`, as the bytes of a self-contained ONNX file. Same weights and versions, same bytes.

    >>> module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    >>> to_onnx(module, (1, 28, 28)) == to_onnx(module, (1, 28, 28))
    True
    """
    data: bytes = to_model(module, input_shape).SerializeToString(deterministic=True)
    return data


def to_model(module: nn.Module, input_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Trace `module` (x float32 [N,C,H,W] to logits [N,classes], any N >= 1) and return its graph.

    A module whose `forward` has a second parameter `sigma` gets the scalar input `sigma` too. The module is tried and
    traced in evaluation mode on the CPU, out of its wrappers, and left as it was.
    Raises `BundleError` where it cannot serve as a base model, cannot be traced, or needs operators outside the
    standard domain.
    """
    with at_rest(module) as network:
        check_module(network, input_shape)
        program = _trace(network, input_shape)
        name = type(network).__name__
    if program is None:
        raise BundleError(f"torch.onnx.export returned nothing for {name}; update torch")
    model = strip(program.model_proto)
    _check(model, name)
    return model


def _trace(network: nn.Module, input_shape: tuple[int, int, int]) -> torch.onnx.ONNXProgram | None:
    conditional = takes_sigma(network)
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                network,
                (torch.zeros(2, *input_shape), *([torch.tensor(0.5)] if conditional else [])),
                dynamo=True,
                external_data=False,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)}, *([None] if conditional else [])),
                input_names=[INPUT, *([SIGMA] if conditional else [])],
                output_names=[OUTPUT],
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:
        cause: BaseException = error  # the exporter's own message only says that there is one
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise BundleError(
            f"{type(network).__name__} cannot be exported for input [N, {', '.join(map(str, input_shape))}]: "
            f"{_reason(cause)}"
        ) from error


def _reason(cause: BaseException) -> str:
    """What the exporter could not do, and the way round it, in words of the network's author."""
    text, kind = " ".join(str(cause).split()), type(cause).__name__
    if "data-dependent" in text or "DataDependent" in kind:
        return "its forward branches on, or counts, the values of images (`if` on a tensor); use torch.where instead"
    if operator := re.search(r"aten[.:]+\w+|torch_lib::\w+|torchvision[.:]+\w+", text):
        return (
            f"the operator {operator[0]} has no ONNX form as it is used here ({kind}); write that step with others, or "
            "pass an ONNX file made in another way"
        )
    return f"{kind}: {text[:200] or 'no reason given'}; it must be traceable by torch.export with a dynamic batch"


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what does not compute: stack traces, local paths, doc strings, intermediate shapes."""
    clean = onnx.ModelProto()
    clean.CopyFrom(model)
    clean.doc_string = ""
    clean.ClearField("metadata_props")
    graph = clean.graph
    graph.doc_string, graph.name = "", "main"
    graph.ClearField("metadata_props")
    graph.ClearField("value_info")
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        item.doc_string = ""
        item.ClearField("metadata_props")
    return clean


def _check(model: onnx.ModelProto, name: str) -> None:
    domains = {node.domain for node in model.graph.node} | {entry.domain for entry in model.opset_import}
    if domains - {"", "ai.onnx"} or model.functions:
        raise BundleError(f"{name} needs operators of {sorted(domains - {''})}; use standard ONNX operators only")
    inputs, outputs = [v.name for v in model.graph.input], [v.name for v in model.graph.output]
    if inputs not in ([INPUT], [INPUT, SIGMA]) or outputs != [OUTPUT]:
        raise BundleError(f"{name} has inputs {inputs} and outputs {outputs}; expected one tensor in, one out")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if not dims[0].dim_param:
        raise BundleError(
            f"{name} fixes its batch size to {dims[0].dim_value}; it must work for any batch: x.shape[0] as it is (no "
            "int(), no loop over the images), and -1 or flatten(1) in reshapes"
        )
    check_file(model, name)


def check_file(model: onnx.ModelProto, name: str) -> None:
    """What is written is what the standard allows. Raises `BundleError`; `name` is what it was made of."""
    if model.ByteSize() < 1 << 30:  # the checker takes larger ones from files only
        try:
            onnx.checker.check_model(model, full_check=True)
        except Exception as error:
            raise BundleError(f"{name}: onnx.checker refuses the exported graph ({one_line(error)})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporter from talking to the user: its deprecation warnings and its log lines."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # what fails is raised
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # it prints the graph of a module that fails
            warnings.filterwarnings("ignore", module=r"(torch|onnxscript|onnx_ir|onnx|copyreg)\b")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
