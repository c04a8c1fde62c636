"""The import graph follows the data: runtime needs no torch, and the folders are no top-level packages."""

import importlib.util
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["runtime", "export", "training"])
def test_folders_are_not_top_level_packages(name: str, tmp_path, monkeypatch) -> None:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is not None)"
    assert subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_runtime_and_cli_import_no_heavy_package() -> None:
    code = (
        "import sys, dualsmooth, dualsmooth.cli\n"
        "heavy = {'torch', 'onnx', 'matplotlib', 'dualsmooth.training', 'dualsmooth.export'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_package_is_found() -> None:
    assert importlib.util.find_spec("dualsmooth.runtime") is not None
