"""What a file is that was passed for another: told from its first bytes, with the way to an ONNX file."""

from __future__ import annotations

import re
import zipfile
from contextlib import suppress
from pathlib import Path

TORCH = "load it in PyTorch and pass the module to export_bundle, or write it with torch.onnx.export"
KERAS = "convert it: python -m tf2onnx.convert --keras FILE --output model.onnx"
TENSORFLOW = "convert it: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx"
AGAIN = "download the file itself again"
ELSEWHERE = "export the original network as ONNX"

ARRAY, ARCHIVE, ZIP = "a NumPy array", "a NumPy archive (.npz)", "a ZIP archive"
HDF5, MATLAB = "an HDF5 file", "a MATLAB file"

_POINTERS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file", "fetch it: git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer, not the file", "fetch it: git annex get FILE"),
    (b"../.git/annex/", "a git-annex pointer, not the file", "fetch it: git annex get FILE"),
    (b"outs:\n- md5:", "a DVC pointer, not the file", "fetch it: dvc pull"),
)
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    *_POINTERS,
    (b"\x89HDF\r\n\x1a\n", HDF5, f"if it is a Keras model, {KERAS}"),
    (b"MATLAB", MATLAB, ELSEWHERE),
    (b"PAR1", "a Parquet file", ELSEWHERE),
    (b"\x1f\x8b", "compressed by gzip", "unpack it: gunzip"),
    (b"BZh", "compressed by bzip2", "unpack it: bunzip2"),
    (b"\xfd7zXZ\x00", "compressed by xz", "unpack it: unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it: unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"GGUF", "a GGUF file", ELSEWHERE),
    (b"ptrt", "a TensorRT engine, compiled for one GPU", ELSEWHERE),
    (b"ftrt", "a TensorRT engine, compiled for one GPU", ELSEWHERE),
    (b"\x93NUMPY", ARRAY, ELSEWHERE),
    (b"\x12\x01\x00\x00\x00\x00\x00\x00", "MXNet parameters", ELSEWHERE),
    (b"7767517\n", "an ncnn network", ELSEWHERE),
    (b"\x89PNG", "a PNG picture", ELSEWHERE),
    (b"\xff\xd8\xff", "a JPEG picture", ELSEWHERE),
    (b"%PDF", "a PDF document", ELSEWHERE),
    (b"\x7fELF", "a program or library", ELSEWHERE),
    (b"MZ", "a program or library", ELSEWHERE),
)
_FIFTH = {
    b"TFL3": ("a TensorFlow Lite model", "convert it: python -m tf2onnx.convert --tflite FILE --output model.onnx"),
    b"ORTM": ("in ONNX Runtime's own format (.ort)", "pass the .onnx file that it was made from"),
    b"ET12": ("an ExecuTorch program", TORCH),
}
_MEMBERS: tuple[tuple[str, str, str], ...] = (
    (r"constants\.pkl$", "a TorchScript archive", "export the module that it was made from: " + TORCH),
    (r"(serialized_exported_program|models/.*)\.json$", "a torch.export archive (.pt2)", TORCH),
    (r"data\.pkl$", "a PyTorch checkpoint", TORCH),
    (r"model\.weights\.h5$", "a Keras archive", KERAS),
    (r"\.mlmodel$", "a Core ML package", ELSEWHERE),
    (r"\.npy$", ARCHIVE, ELSEWHERE),
    (r"\.onnx$", "a ZIP archive of an ONNX file", "unpack it"),
)
_PROTOBUFS: tuple[tuple[bytes, str, str], ...] = (
    (rb"^\x08[\x01-\x0f]\x12.{0,4096}com\.(github\.)?apple\.", "a Core ML model", ELSEWHERE),
    (rb"^\x08\x01\x12.{0,4096}(serve|Placeholder|NoOp|VarHandleOp)", "a TensorFlow SavedModel", TENSORFLOW),
    (rb"^\x0a.{0,4096}(Placeholder|Const|VarHandleOp)", "a TensorFlow graph", "convert it with tf2onnx"),
    (rb"^\x0a.{0,4096}(feed|fetch|conv2d)", "a PaddlePaddle program", "convert it with paddle2onnx"),
)  # fmt: skip
_TEXTS: tuple[tuple[str, str, str], ...] = (
    (r"<!doctype html|<html|<head", "an HTML page (a failed download?)", AGAIN),
    (r"(<\?xml[^>]*>\s*)?<net\b", "an OpenVINO network (.xml)", ELSEWHERE),
    (r"<\?xml", "XML (a failed download?)", AGAIN),
    (r"[{\[]\s*(\"|\{|\]|\})", "JSON", "pass the .onnx file"),
    (r"\[(net|network)\]", "a Darknet configuration", ELSEWHERE),
    (r"(name:|layer\s*\{|input:)", "a Caffe network", ELSEWHERE),
)


def foreign(path: Path, *, guess: bool = False) -> str:
    """What the file or folder at `path` is and what to do, where it is seen to be no ONNX file; else nothing.

    `guess`: it cannot be read as ONNX, so that less certain signs will do.
    """
    what, fix = _seen(path, guess)
    if not what:
        return ""
    return f"{path} is {what}; {fix}" if "pointer" in what else f"{path} is {what}, not an ONNX file; {fix}"


def kind_of(path: Path) -> str:
    """What the file or folder at `path` is, where that is seen; else nothing. For a pointer, how to fetch it too."""
    what, fix = _seen(path, False)
    return f"{what}; {fix}" if "pointer" in what else what


def pointer(head: bytes) -> str:
    """Where a file that begins with `head` only points to another: what it is and how to fetch that; else nothing."""
    return next((f"{what}; {fix}" for start, what, fix in _POINTERS if head.startswith(start)), "")


def _seen(path: Path, guess: bool) -> tuple[str, str]:
    if path.is_dir():
        return _folder(path)
    try:
        with open(path, "rb") as file:
            head, size = file.read(8192), path.stat().st_size
    except OSError:
        return "", ""
    return _file(path, head, size, guess)


def _folder(path: Path) -> tuple[str, str]:
    if (path / "saved_model.pb").exists() or (path / "saved_model.pbtxt").exists():
        return "a TensorFlow SavedModel folder", TENSORFLOW.replace("FOLDER", str(path))
    if (path / "Manifest.json").exists() or path.suffix == ".mlpackage":
        return "a Core ML package", ELSEWHERE
    found = sorted(file.name for file in path.glob("*.onnx"))
    return "a folder", f"pass a file in it: {', '.join(found[:4])}" if found else "pass a file"


def _file(path: Path, head: bytes, size: int, guess: bool) -> tuple[str, str]:
    if not size:
        return "empty", AGAIN
    if not head.strip(b"\x00"):
        return "nothing but zeros at its beginning", AGAIN
    for start, what, fix in _STARTS:
        if head.startswith(start):
            return what, fix.replace("FILE", str(path))
    if head[4:8] in _FIFTH:
        what, fix = _FIFTH[head[4:8]]
        return what, fix.replace("FILE", str(path))
    if head.startswith(b"PK"):
        return _zip(path)
    if head[257:262] == b"ustar":
        return "a TAR archive", "unpack it"
    if re.match(rb"\x80[\x02-\x05]", head):
        return "a Python pickle (a PyTorch checkpoint or a scikit-learn model); it is not opened here", TORCH
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= max(size, 100 << 20):
        return "a safetensors file: weights without a network", "load them into the network, and " + TORCH
    for pattern, what, fix in _PROTOBUFS if guess else ():
        if re.search(pattern, head, re.DOTALL):
            return what, fix
    return _text(head)


def _zip(path: Path) -> tuple[str, str]:
    names: list[str] = []
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for pattern, what, fix in _MEMBERS:
        if any(re.search(pattern, name) for name in names):
            return what, fix.replace("FILE", str(path))
    return ZIP, "unpack it" if names else AGAIN


def _text(head: bytes) -> tuple[str, str]:
    try:
        text = head.decode("utf-8-sig").lstrip()
    except UnicodeDecodeError:
        return "", ""
    if any(ord(c) < 32 and c not in "\t\r\n\f" for c in text):
        return "", ""
    for pattern, what, fix in _TEXTS:
        if re.match(pattern, text, re.IGNORECASE):
            return what, fix
    return f"text that begins with {text[:40]!r}", AGAIN
