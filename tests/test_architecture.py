"""The house stays as docs/architecture.md draws it: imports are read, not run, and compared with the floors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ANYBODY = ("errors", "files", "strict_json", "rounding", "terminal")
"""Single modules of the runtime that everybody may use. No other file lies directly in runtime/."""
ROOMS = (
    *("statistics", "noise", "graphs", "bundle", "engine", "datasets"),
    *("smoothing", "evaluation", "serving", "report", "studio", "commands"),
)
"""Those of the runtime, from the ground up: each imports only what stands before it, and itself."""
FLOORS = (
    *((f"runtime.{name}",) for name in (*ANYBODY, *ROOMS)),
    ("runtime",),
    ("export.onnx", "export.roles"),
    ("training.checks", "training.seeds"),
    ("training.networks",),
    ("training.objectives",),
    ("training.config",),
    ("training.data",),
    ("training.run",),
    ("training.loop",),
    ("training.stages",),
    ("training.commands",),
    ("training",),
    ("export.checks",),
    ("export.members", "export.conversion", "export.card", "export.writing", "export.bundle"),
    ("export.beside", "export.run", "export.sources", "export.bench", "export.adapters", "export.one_file"),
    ("export.commands",),
    ("export",),
)
"""All floors, from the ground up; each may import what is on its own floor or below. The packages re-export."""
MOST_LINES, LONGEST_FUNCTION = 320, 60


@cache
def modules() -> dict[str, Path]:
    """Dotted names below `dualsmooth`, e.g. `runtime.noise.streams`; a package is called as its folder is."""
    found = {}
    for package in ("runtime", "export", "training"):
        for path in sorted((ROOT / package).rglob("*.py")):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


def imported(name: str) -> Iterator[tuple[str, str]]:
    """What a module imports from this project, anywhere in its text: the module, and the name (empty: all of it)."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("dualsmooth."):
                    yield alias.name.removeprefix("dualsmooth."), ""
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualsmooth."):
            assert node.level == 0
            base = str(node.module).removeprefix("dualsmooth.")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield (whole, "") if whole in modules() else (base, alias.name)


def floor(name: str) -> int:
    """The floor of the longest name that is the module's or holds it."""
    homes = [(len(home), i) for i, names in enumerate(FLOORS) for home in names if f"{name}.".startswith(f"{home}.")]
    return max(homes)[1]


def test_there_is_something_to_read() -> None:
    assert len(modules()) > 100
    assert ("runtime.errors", "InputError") in set(imported("runtime.files"))


def test_nobody_imports_from_above() -> None:
    above = [
        f"{name} imports {other}" for name in modules() for other, _ in imported(name) if floor(other) > floor(name)
    ]
    assert not above


def test_what_is_new_has_its_floor() -> None:
    """It is not left on that of its whole package, which may import everything."""
    for package in ("runtime", "export", "training"):
        assert [name for name in modules() if floor(name) == floor(package)] == [package]


def test_nothing_lies_between_the_rooms() -> None:
    files = {path.stem for path in (ROOT / "runtime").glob("*.py")}
    assert files == {"__init__", *ANYBODY}
    rooms = {path.name for path in (ROOT / "runtime").iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ROOMS)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """A floor may be shared, but not in a circle."""
    sorter = TopologicalSorter({name: {other for other, _ in imported(name)} - {name} for name in modules()})
    assert list(sorter.static_order())


def test_private_names_stay_at_home() -> None:
    borrowed = [f"{name}: {other}.{what}" for name in modules() for other, what in imported(name) if private(what)]
    for name in modules():
        aliases = {
            alias.asname or alias.name
            for node in ast.walk(tree(name))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualsmooth.")
            for alias in node.names
        }
        borrowed += [
            f"{name}: {node.value.id}.{node.attr}"
            for node in ast.walk(tree(name))
            if isinstance(node, ast.Attribute)
            and private(node.attr)
            and isinstance(node.value, ast.Name)
            and node.value.id in aliases
        ]
    assert not borrowed


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_modules_and_functions_are_short() -> None:
    long = [
        f"{name} has {count} lines; it holds more than one idea"
        for name, path in modules().items()
        if (count := len(path.read_text().splitlines())) > MOST_LINES
    ]
    for name in modules():
        long += [
            f"{name}.{node.name} has {count} lines; name its steps"
            for node in ast.walk(tree(name))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (count := int(node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
        ]
    assert not long, "\n".join(long)
