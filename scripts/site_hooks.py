"""What the documentation site has beyond docs/: the README as its first page, what links lead to, the help of commands.

Hooks of MkDocs (`make docs`); the pages of docs/ stay readable where they lie.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "configs", "examples", "scripts", "Makefile")
HEADING = "    options:\n      heading: "
WIDTH = {"COLUMNS": "100", "NO_COLOR": "1"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and the files beside docs/ that pages link to."""
    made = {"index.md": readme(), "commands.md": commands(), "api.md": api()}
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    for path in (found for name in BESIDE for found in each(ROOT / name)):
        files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of a page lead to where the site has their targets: docs/ is its root, the rest lies beside it."""
    here = page.file.src_uri
    source = ROOT / "docs" / here if (ROOT / "docs" / here).exists() else ROOT / here

    def moved(link: re.Match[str]) -> str:
        target = os.path.relpath(source.parent / link[1], ROOT).removeprefix("docs/")
        return f"]({os.path.relpath(target, os.path.dirname(here) or '.')}{link[2]}"

    return re.sub(r"\]\((?!https?:|#|mailto:)([^)#\s]+)([)#\s])", moved, markdown)


def each(path: Path) -> list[Path]:
    """The files of a folder, or the file itself."""
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return [p for p in found if p.is_file() and "__pycache__" not in p.parts and p.suffix in SHOWN | {path.suffix}]


SHOWN = {".md", ".py", ".ipynb", ".toml", ".txt", ".html", ".js", ".css"}


def readme() -> str:
    """The README, as a page beside those of docs/."""
    return (ROOT / "README.md").read_text().replace('="docs/', '="')


def commands() -> str:
    """The help of every command, as it prints it."""
    from dualsmooth.runtime.commands import COMMANDS

    parts = ["# Commands\n\nThe help of each command, as it prints it (`dualsmooth COMMAND --help`)."]
    for name in COMMANDS:
        call = [sys.executable, "-m", "dualsmooth", name, "--help"]
        text = subprocess.run(call, check=True, capture_output=True, text=True, env={**os.environ, **WIDTH}).stdout
        parts.append(f"## {name}\n\n```text\n{text.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def api() -> str:
    """What `import dualsmooth` offers, from its docstrings: functions, then classes, then errors."""
    from dualsmooth.runtime import _HOME

    groups: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": []}
    for name in _HOME:
        kind = "Errors" if name.endswith("Error") else "Classes" if name[0].isupper() else "Functions"
        groups[kind].append(name)
    parts = ["# The Python API\n\nWhat `import dualsmooth as ds` offers; [From Python](python.md) has examples."]
    for title, names in groups.items():
        parts.append(f"## {title}")
        parts += [f"::: dualsmooth.runtime.{_HOME[name]}.{name}\n{HEADING}ds.{name}" for name in names]
    return "\n\n".join(parts) + "\n"


class Examples(griffe.Extension):
    """Examples of docstrings as blocks of code, each until its blank line."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"(?:^>>> .*\n?)(?:^.+\n?)*", _fenced, text, flags=re.MULTILINE)


def _fenced(found: re.Match[str]) -> str:
    return f"\n```pycon\n{found[0].rstrip()}\n```\n"
