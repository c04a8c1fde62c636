"""The notebook's cells run in order, as printed, and what is shown under them is what they give."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
PAGE = json.loads(NOTEBOOK.read_text("utf-8"))
CELLS = [cell for cell in PAGE["cells"] if cell["cell_type"] == "code"]
KINDS = ("execute_result", "display_data", "stream")


def run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; the value of its last line where that is an expression, as notebooks show it."""
    *before, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        before.append(last)
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


NUMBER = re.compile(r"\b\d+\.\d+\b|\d+(?= bytes)")


def alike(shown: list[str], given: list[str]) -> bool:
    """Whether texts are the same but for their figures, and these close: another processor may round a few votes
    otherwise."""
    figures = [[float(n) for text in texts for n in NUMBER.findall(text)] for texts in (shown, given)]
    same = [NUMBER.sub("", text) for text in shown] == [NUMBER.sub("", text) for text in given]
    return same and figures[0] == pytest.approx(figures[1], rel=0.05)


@pytest.mark.slow
def test_it_shows_what_its_cells_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    monkeypatch.chdir(tmp_path)  # it needs nothing but the package
    names: dict[str, Any] = {}
    for cell in CELLS:
        value = run("".join(cell["source"]), names)
        outputs = {kind: [out for out in cell["outputs"] if out["output_type"] == kind] for kind in KINDS}
        printed = "".join(text for out in outputs["stream"] for text in out["text"])
        assert alike([printed], [capsys.readouterr().out])
        shown = [{kind: "".join(lines) for kind, lines in out["data"].items()} for out in outputs["execute_result"]]
        assert alike([data["text/plain"] for data in shown], [repr(value)] if value is not None else [])
        pages = [data["text/html"] for data in shown if "text/html" in data]
        assert alike([html.split("<svg")[0] for html in pages], [value.show().html.split("<svg")[0]] if pages else [])
        pictures = [out for out in cell["outputs"] if "image/png" in out.get("data", {})]
        assert len(pictures) == len(pyplot.get_fignums())
        pyplot.close("all")


def test_it_is_small_whole_and_without_traces_of_a_machine() -> None:
    assert PAGE["nbformat"] == 4
    assert NOTEBOOK.stat().st_size < 150_000
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    kinds = {out["output_type"] for cell in CELLS for out in cell["outputs"]}
    assert kinds == {"execute_result", "display_data", "stream"}
    assert all(
        out.get("name") == "stdout" for cell in CELLS for out in cell["outputs"] if out["output_type"] == "stream"
    )
    assert not [cell for cell in PAGE["cells"] if cell["metadata"]]
    assert not re.search(r"/(home|root|tmp|work|usr)/", NOTEBOOK.read_text("utf-8"))
