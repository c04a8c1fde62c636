"""What the documents ask a server, asked of a real one."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import documents
import numpy as np
import PIL.Image
import pytest
import toys
from triton_server import TritonServer

import dualsmooth as ds
from dualsmooth.cli import main

NAMES = ["README.md", "docs/triton.md", "docs/gpu.md"]


def test_no_other_document_asks_a_server() -> None:
    asking = [path for path in documents.DOCUMENTS if documents.SERVER.search(path.read_text())]
    assert {str(path.relative_to(documents.ROOT)) for path in asking} >= set(NAMES)
    for path in asking:
        asked = [text for _, text in documents.blocks(path) if documents.SERVER.search(text)]
        assert not asked or str(path.relative_to(documents.ROOT)) in NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_commands(name: str, grpc_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [c for c in documents.commands(documents.ROOT / name) if c.startswith("dualsmooth") or "/bin/" in c]
    asking = [c for c in commands if documents.SERVER.search(c)]
    assert asking
    np.save(tmp_path / "image.npy", toys.image(0.9, 0.1))
    for command in asking:
        put = documents.SERVER.sub(grpc_url, re.sub(r"\bIMAGE\b|\S+\.(npy|png)", str(tmp_path / "image.npy"), command))
        program, *arguments = shlex.split(documents.smaller(put))
        assert Path(program).name == "dualsmooth"
        assert main(arguments) == 0, command
        shown = capsys.readouterr().out
        assert ('"radius"' if "--json" in arguments else "certified radius") in shown


@pytest.mark.slow
def test_curl(server: TritonServer, toy_bundle: Path, tmp_path: Path) -> None:
    """The blocks with curl, in a reader's shell."""
    PIL.Image.fromarray(np.array([[230, 25]], np.uint8)).save(tmp_path / "image.png")
    program = tmp_path / "bin" / "dualsmooth"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dualsmooth "$@"\n')
    program.chmod(0o755)
    env = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    shown = []
    for _, text in documents.blocks(documents.ROOT / "docs" / "triton.md"):
        if "curl" in text:
            here = text.replace("http://host:8000", f"http://127.0.0.1:{server.http}").replace(
                "BUNDLE", str(toy_bundle)
            )
            done = subprocess.run(
                ["bash", "-eo", "pipefail", "-c", here], cwd=tmp_path, env=env, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            shown.append(done.stdout)
    generated, inferred = shown
    *_, last = re.findall(r"^\{.*\}$", generated, re.M)
    certificate = ds.Certificate.from_json((tmp_path / "certificate.json").read_text())
    assert certificate.label == json.loads(last)["LABEL"] == 1
    assert json.loads(last)["RADIUS"] > 0
    assert "replay" in generated
    assert [output["name"] for output in json.loads(inferred)["outputs"]] == ["LABEL", "RADIUS"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_python(name: str, grpc_url: str) -> None:
    for language, text in documents.blocks(documents.ROOT / name):
        if language == "python" and documents.SERVER.search(text):
            names = {"image": toys.image(0.9, 0.1)}
            exec(compile(documents.SERVER.sub(grpc_url, text), name, "exec"), names)
            assert isinstance(names["cert"], ds.Certificate)
