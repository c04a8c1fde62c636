"""What the documents ask a server, asked of a real one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import documents
import numpy as np
import pytest
import toys

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
    asking = [c for c in documents.commands(documents.ROOT / name) if documents.SERVER.search(c)]
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
@pytest.mark.parametrize("name", NAMES)
def test_python(name: str, grpc_url: str) -> None:
    for language, text in documents.blocks(documents.ROOT / name):
        if language == "python" and documents.SERVER.search(text):
            names = {"image": toys.image(0.9, 0.1)}
            exec(compile(documents.SERVER.sub(grpc_url, text), name, "exec"), names)
            assert isinstance(names["cert"], ds.Certificate)
