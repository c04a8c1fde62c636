"""`history.jsonl`: one line for each epoch of each network of a run, for people and for plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import write_atomically

HISTORY = "history.jsonl"


def append_history(checkpoint: Path, epoch: int, **values: float) -> None:
    """Write the line of `epoch` (from 1) of the network that is saved at `checkpoint`, to the file beside it.

    It is written before the checkpoint: an epoch that a kill made run again replaces its line.
    """
    path, name = checkpoint.parent / HISTORY, checkpoint.stem
    kept = [entry for entry in read_history(path) if entry["network"] != name or entry["epoch"] < epoch]
    lines = [*kept, {"network": name, "epoch": epoch, **values}]
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))


def copy_history(source: Path, target: Path) -> None:
    """Write the lines of the network that is saved at `source` to the history beside `target`, in place of those that
    are there."""
    taken = [entry for entry in read_history(source.parent / HISTORY) if entry["network"] == source.stem]
    kept = [entry for entry in read_history(target.parent / HISTORY) if entry["network"] != target.stem]
    lines = [*kept, *({**entry, "network": target.stem} for entry in taken)]
    write_atomically(target.parent / HISTORY, "".join(json.dumps(line) + "\n" for line in lines))


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a history; a missing file is empty, and lines that are not of a history are left out.

    Raises `InputError` where the file cannot be read: what is there must not be taken for nothing, and written over.
    """
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; make it readable and train on") from error
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and {"network", "epoch"} <= set(entry) and isinstance(entry["epoch"], int):
            entries.append(entry)
    return entries
