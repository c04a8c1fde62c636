"""Write files so that a partial one never looks finished."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from dualsmooth.runtime.errors import InputError


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_to_all_but_umask(path: str | Path, mode: int) -> None:
    """Give `path`, made for this user alone, the permissions `mode` that the umask leaves."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, mode & ~umask)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as the contents of its files (or the contents of one file)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(root: Path) -> None:
    """Make all files and folders below `root` durable, before a rename shows them."""
    for folder, _, names in os.walk(root):
        for path in (*(Path(folder, name) for name in names), Path(folder)):
            sync_folder(path)


def cache_folder() -> Path:
    """Where this user's caches are: `dualsmooth` in XDG_CACHE_HOME, or in ~/.cache. It may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "dualsmooth"


def check_free(path: str | Path, force: bool) -> None:
    """Raise `InputError` where a file would be written over another one without `force`, or over no file at all."""
    path = Path(path)
    if os.path.lexists(path) and not force:
        raise InputError(f"{path} exists; choose another --out, or add --force to write over it")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file that can be written over; choose another --out")


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write `data` under a temporary name in the same folder, sync it, then rename it to `path` and sync the folder.

    Whenever the process or the machine stops, `path` holds the old contents or the new ones, whole. Raises
    `InputError`.
    """
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder that can be written") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        open_to_all_but_umask(name, 0o666)
        os.replace(name, path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(
                f"cannot write {path}: {error.strerror}; free some space or choose another folder"
            ) from error
        raise
