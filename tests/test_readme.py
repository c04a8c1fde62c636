"""The README's Python runs as it stands."""

from pathlib import Path

import numpy as np
import pytest

from dualsmooth.runtime.datasets import load_dataset
from dualsmooth.runtime.demo import SHIPPED_IMAGES

ROOT = Path(__file__).parents[1]


def test_python_block(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    images: np.ndarray = load_dataset(f"npz:{SHIPPED_IMAGES}").images[:2]
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {"image": images[0], "images": images})
    assert "dualsmooth-certificate" in capsys.readouterr().out
