"""The order inside of export, and against training: who imports whom, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = (
    ("runtime",),
    ("export.onnx", "export.roles"),
    ("training",),
    ("export.checks",),
    ("export.members", "export.conversion", "export.card", "export.writing", "export.bundle"),
    ("export.run", "export.sources", "export.bench"),
    ("export.commands",),
    ("export",),
)
"""From the ground up; each may import what is on its own floor or below. `export` itself re-exports."""
SOURCES = [path for folder in ("export", "training") for path in sorted((ROOT / folder).rglob("*.py"))]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path) for path in (ROOT / "runtime").rglob("*.py")} | {name_of(path) for path in SOURCES}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Modules of this project that a file imports anywhere, and the name that it takes from each."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualsmooth."):
            module = str(node.module).removeprefix("dualsmooth.")
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield (inner, "") if inner in MODULES else (module, alias.name)
        elif isinstance(node, ast.Import):
            yield from (
                (a.name.removeprefix("dualsmooth."), "") for a in node.names if a.name.startswith("dualsmooth.")
            )


def floor(module: str) -> int:
    """The floor of the longest name that is the module's or holds it."""
    homes = [(len(name), i) for i, names in enumerate(FLOORS) for name in names if f"{module}.".startswith(f"{name}.")]
    return max(homes)[1]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nobody_imports_from_above(path: Path) -> None:
    name = name_of(path)
    above = {module for module, _ in imports(path) if floor(module) > floor(name)}
    assert not above


def test_every_module_of_export_has_its_floor() -> None:
    """What is new is placed, not left on the floor of `export` itself."""
    assert {name for path in SOURCES if floor(name := name_of(path)) == len(FLOORS) - 1} == {"export"}


def test_there_is_no_circle() -> None:
    """A floor may be shared, but not in a circle."""
    graph = {name_of(path): {module for module, _ in imports(path)} for path in SOURCES}
    ours = {name: graph[name] for name in graph if name.startswith("export.")}
    assert list(TopologicalSorter(ours).static_order())


@pytest.mark.parametrize("path", [path for path in SOURCES if name_of(path).startswith("export")], ids=name_of)
def test_private_names_stay_in_their_module(path: Path) -> None:
    assert not {taken for _, taken in imports(path) if taken.startswith("_")}
