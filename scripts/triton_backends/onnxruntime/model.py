"""Stands in for Triton's ONNX Runtime backend where it is not installed: `model.onnx` on the onnxruntime package.

The pip-installed server has the Python backend only. With this file as `<backend directory>/onnxruntime/model.py`,
configurations that say `backend: "onnxruntime"` load unmodified; NVIDIA's containers have the real backend.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        self.batched = self.config["max_batch_size"] > 0
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        level = int(self.config.get("optimization", {}).get("graph", {}).get("level", 0))
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = {
            -1: levels.ORT_ENABLE_BASIC, 1: levels.ORT_ENABLE_EXTENDED, 2: levels.ORT_DISABLE_ALL,
        }.get(level, levels.ORT_ENABLE_ALL)  # fmt: skip
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        shapes = {value.name: value.shape for value in [*self.session.get_inputs(), *self.session.get_outputs()]}
        for value in [*self.config["input"], *self.config["output"]]:
            stated = value.get("reshape", {}).get("shape", value["dims"])
            stated = (["batch"] if self.batched else []) + [int(d) for d in stated]
            found = shapes.get(value["name"])
            if found is None or len(found) != len(stated):
                raise pb.TritonModelException(f"{path}: {value['name']} is {found}; the configuration says {stated}")

    def execute(self, requests):
        feeds = [{name: self._array(request, name) for name in self._names()} for request in requests]
        if not self.batched or len(requests) == 1:
            return [self._answer(self.session.run(["logits"], feed)[0]) for feed in feeds]
        sizes = np.cumsum([len(feed["x"]) for feed in feeds])[:-1]
        logits = self.session.run(["logits"], {"x": np.concatenate([feed["x"] for feed in feeds])})[0]
        return [self._answer(part) for part in np.split(logits, sizes)]

    def _names(self):
        return [value["name"] for value in self.config["input"]]

    def _array(self, request, name):
        array = pb.get_input_tensor_by_name(request, name).as_numpy()
        scalar = any(
            v["name"] == name and "reshape" in v and not v["reshape"].get("shape") for v in self.config["input"]
        )
        return array.reshape(()) if scalar else array

    def _answer(self, logits):
        return pb.InferenceResponse([pb.Tensor("logits", np.ascontiguousarray(logits))])
