"""The import graph follows the data: runtime needs no torch, and the folders are no top-level packages."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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


@pytest.mark.parametrize("given", ["", "0"])
def test_the_engine_reports_to_nobody(given: str, tmp_path: Path) -> None:
    """ONNX Runtime 1.32 leaves an identifier in the user's cache when its telemetry is on. What a user set stays."""
    code = (
        "import os, dualsmooth as ds; ds.load('runtime/data/fashion-mnist'); print(os.getenv('ORT_DISABLE_TELEMETRY'))"
    )
    rest = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment = {**rest, "XDG_CACHE_HOME": str(tmp_path), **({"ORT_DISABLE_TELEMETRY": given} if given else {})}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout.strip() == (given or "1"), done.stderr
    assert given or not (tmp_path / "Microsoft").exists()


def test_package_is_found() -> None:
    assert importlib.util.find_spec("dualsmooth.runtime") is not None
