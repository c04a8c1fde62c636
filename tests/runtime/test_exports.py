"""What `import dualsmooth` offers: all of it, and none of it before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dualsmooth as ds
from dualsmooth import runtime


def test_every_name_that_is_exported_is_there() -> None:
    for name in ds.__all__:
        assert getattr(ds, name) is getattr(runtime, name)
        assert getattr(ds, name).__name__ == name
    assert set(ds.__all__) <= set(dir(ds))
    assert set(runtime.__all__) == set(runtime._HOME) == set(ds.__all__)


@pytest.mark.parametrize("module", [ds, runtime])
@pytest.mark.parametrize("name", ["certfy", "_HOME_"])
def test_other_names_are_not(module: object, name: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(module, name)


@pytest.mark.parametrize("code", ["import dualsmooth", "import dualsmooth.cli", "from dualsmooth import InputError"])
def test_nothing_is_imported_before_it_is_needed(code: str) -> None:
    heavy = "{'numpy', 'scipy', 'onnxruntime', 'PIL', 'matplotlib', 'torch'}"
    code = f"{code}; import sys; sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_a_star_imports_all() -> None:
    code = "from dualsmooth import *; print(load.__name__, Fixed(3), issubclass(InputError, DualSmoothError))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "load fixed:3 True\n"
