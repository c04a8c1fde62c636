"""Groups as a person writes them down: a JSON or TOML file from name to classes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from dualsmooth.runtime import strict_json
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.statistics.groups import FORM


def read_groups(path: str | Path) -> dict[str, Any]:
    """What a file of groups says (`Groups.resolved` checks it against the classes). Raises `InputError`."""
    path = Path(path)
    try:
        text = path.read_text("utf-8-sig")
        found = tomllib.loads(text) if path.suffix == ".toml" else strict_json.loads(text)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read groups of {path} ({why}); expected JSON or TOML: {FORM}") from error
    if not isinstance(found, dict):
        raise InputError(f"groups of {path} are {str(found)[:60]}; expected {FORM}")
    return found
