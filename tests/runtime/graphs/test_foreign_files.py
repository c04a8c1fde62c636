"""Files of other kinds, passed as ONNX, are told by what they are."""

import gzip
import io
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from toys import SHAPE, steps_onnx, write_bundle

import dualsmooth as ds
from dualsmooth.export.onnx.files import load_onnx, shape_of
from dualsmooth.runtime.graphs.foreign_files import foreign
from dualsmooth.runtime.graphs.model import read_model

GRAPH = steps_onnx(0, [0.5])
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"


def torch_bytes(save: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name in names:
            made.writestr(name, GRAPH)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        made.addfile(tarfile.TarInfo("model.onnx"))
    return buffer.getvalue()


def numpy_bytes(save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, np.zeros(3))
    return buffer.getvalue()


def module() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2))


KINDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "lfs": (lambda: POINTER, "a Git LFS pointer, not the file; fetch it.*git lfs pull"),
    "annex": (lambda: b"/annex/objects/MD5E-s12--0\n", "git-annex pointer.*git annex get"),
    "dvc": (lambda: b"outs:\n- md5: 0\n  size: 1\n  path: m.onnx\n", "DVC pointer.*dvc pull"),
    "state dict": (lambda: torch_bytes(lambda b: torch.save(module().state_dict(), b)), "PyTorch checkpoint"),
    "old state dict": (
        lambda: torch_bytes(lambda b: torch.save(module().state_dict(), b, _use_new_zipfile_serialization=False)),
        "Python pickle.*PyTorch",
    ),
    "torchscript": (lambda: archive("m/code/a.py", "m/data.pkl", "m/constants.pkl"), "TorchScript.*the module"),
    "pt2": (lambda: torch_bytes(lambda b: torch.export.save(
        torch.export.export(module().eval(), (torch.zeros(1, *SHAPE),)), b)), r"torch.export archive"),
    "pickle": (lambda: pickle.dumps({"a": [1]}), "Python pickle"),
    "safetensors": (lambda: (65).to_bytes(8, "little") + b'{"w":' + b" " * 70, "safetensors"),
    "keras h5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5.*Keras.*tf2onnx"),
    "matlab": (lambda: b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(99), "a MATLAB file"),
    "parquet": (lambda: b"PAR1" + bytes(99), "a Parquet file"),
    "keras": (lambda: archive("config.json", "metadata.json", "model.weights.h5"), "a Keras archive.*tf2onnx"),
    "savedmodel": (lambda: b"\x08\x01\x12\x99\x01\x0a\x07\x12\x05serve\x12\x40\x0a\x0bNoOp", "TensorFlow SavedModel"),
    "graphdef": (lambda: b"\x0a\x30\x0a\x05input\x12\x0bPlaceholder\x2a\x0b\x0a\x05dtype", "TensorFlow graph"),
    "tflite": (lambda: b"\x1c\x00\x00\x00TFL3" + bytes(50), "TensorFlow Lite.*--tflite"),
    "ort": (lambda: b"\x1c\x00\x00\x00ORTM" + bytes(50), r"own format \(.ort\)"),
    "openvino": (lambda: b'<?xml version="1.0"?>\n<net name="x" version="11">', "OpenVINO"),
    "coreml": (lambda: b"\x08\x04\x12\x50\x0a\x0d\x0a\xa2\x06\x20com.github.apple.coremltools\xff", "Core ML"),
    "gzip": (lambda: gzip.compress(GRAPH), "gzip.*gunzip"),
    "zip": (lambda: archive("model.onnx"), "ZIP archive of an ONNX file.*unpack it"),
    "tar": (tar, "TAR archive"),
    "npz": (lambda: numpy_bytes(np.savez), "NumPy archive"),
    "npy": (lambda: numpy_bytes(np.save), "NumPy array"),
    "html": (lambda: b"\n<!DOCTYPE html><html><body>404</body></html>", "HTML page.*download"),
    "s3 error": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML.*download"),
    "json": (lambda: b'{"error": "Repository not found"}', "JSON"),
    "entry": (lambda: b"Entry not found", "text that begins with 'Entry not found'"),
    "empty": (lambda: b"", "empty"),
    "zeros": (lambda: bytes(9000), "zeros"),
    "engine": (lambda: b"ptrt" + bytes(40), "TensorRT engine"),
    "caffe": (lambda: b'name: "LeNet"\nlayer {\n', "Caffe"),
    "darknet": (lambda: b"[net]\nbatch=1\n", "Darknet"),
    "mxnet": (lambda: b"\x12\x01" + bytes(20), "MXNet"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    make, said = KINDS[kind]
    path.write_bytes(make())
    for read in (lambda: load_onnx(path, SHAPE), lambda: shape_of(path), lambda: read_model(path)):
        with pytest.raises(ds.DualSmoothError, match=rf"^{path} is .*{said}"):
            read()


def test_onnx_files_are_none_of_them(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for model in (GRAPH, named("NeuralNetwork serve Placeholder com.apple.")):
        path.write_bytes(model)
        assert foreign(path) == ""
        read_model(path)


def named(name: str) -> bytes:
    model = onnx.load_from_string(GRAPH)
    model.producer_name = model.graph.name = name
    return bytes(model.SerializeToString())


def test_folders_are_named(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(ds.InputError, match=r"a TensorFlow SavedModel folder.*tf2onnx"):
        load_onnx(saved, SHAPE)
    bundle = write_bundle(
        tmp_path / "b", sigmas=(0.25,), sigma_e=0.25, estimator_cuts=[], classifier_cuts=[0.5]
    )  # fmt: skip
    with pytest.raises(ds.InputError, match=r"a folder, not an ONNX file; pass a file in it: classifier"):
        load_onnx(bundle, SHAPE)


@pytest.mark.parametrize("name", ["estimator.onnx", "manifest.json"])
def test_a_bundle_cloned_without_lfs(tmp_path: Path, name: str) -> None:
    bundle = write_bundle(
        tmp_path / "b", sigmas=(0.25,), sigma_e=0.25, estimator_cuts=[], classifier_cuts=[0.5]
    )  # fmt: skip
    (bundle / name).write_bytes(POINTER)
    with pytest.raises(ds.BundleError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        ds.read_bundle(bundle)
    shutil.rmtree(bundle)
