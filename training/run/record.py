"""The run directory: what was asked for, by which code, and what came out. The contract between training and export.

config.toml       the configuration, complete
classifier*.pt    checkpoint of the classifier, or of each level's expert, after its last finished epoch
fold1-*.pt, …     the same without the images of each fold (cross-fitting)
labels/*.npy      votes for the true label and passes drawn, in shards; fold1-labels/, … where there are folds
estimator.pt      checkpoint of the estimator
round2/, …        the same for each further round, and routes/*.npy: the router's votes that the round begins with
history.jsonl     loss and learning rate of each epoch of the networks in this folder
metrics.json      measurements on the validation split
run.json          the record: sessions, shapes, SHA-256 of the checkpoints; `finished` once all stages are done
"""

from __future__ import annotations

import fcntl
import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import sha256_of, write_atomically
from dualsmooth.training.config import Config
from dualsmooth.training.networks.network import Network
from dualsmooth.training.run.checkpoint import load_checkpoint

FORMAT = "dualsmooth-run"
VERSION = 1
CONFIG, RECORD, METRICS = "config.toml", "run.json", "metrics.json"
LABELS, ROUTES, ESTIMATOR = "labels", "routes", "estimator.pt"


def round_folder(number: int) -> str:
    """The folder, in the run directory, of the round `number` from 0; the first round's is the run directory."""
    return f"round{number + 1}" if number else "."


def classifier_names(config: Config, fold: int = 0) -> tuple[str, ...]:
    """The file of each level's classifier in its round's folder; `fold` from 1 for those of cross-fitting."""
    if config.experts:
        return tuple(f"classifier_{sigma:g}.onnx" for sigma in config.sigmas)
    prefix = f"fold{fold}-" if fold else ""
    if config.classifier.experts:
        return tuple(f"{prefix}classifier_{sigma:g}.pt" for sigma in config.sigmas)
    return (f"{prefix}classifier.pt",) * len(config.sigmas)


def label_folder(fold: int = 0) -> str:
    """The folder of label votes in its round's folder; `fold` from 1 where there are folds."""
    return f"fold{fold}-{LABELS}" if fold else LABELS


@dataclass(frozen=True)
class Run:
    """A finished run: its two stages in evaluation mode, one classifier per level (shared ones are the same object).

    An expert that came as an ONNX file is the path of its copy in the run.
    """

    path: Path
    estimator: Network
    classifiers: tuple[Network | Path, ...]
    sigmas: tuple[float, ...]
    sigma_e: float
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    record: dict[str, Any]


def load_run(path: str | Path) -> Run:
    """Read a finished run; raises `InputError` where it is missing, unfinished or damaged."""
    root = Path(path)
    record = read_record(root)
    if record is None:
        raise InputError(f"{root} is not a run directory (no {RECORD}); make one with `dualsmooth train --out {root}`")
    if record.get("finished") is not True:
        raise InputError(f"run {root} is not finished; go on with `dualsmooth train --out {root}`")
    try:
        channels, height, width = (int(n) for n in record["input_shape"])
        sigmas = tuple(float(s) for s in record["sigmas"])
        files = {str(name): str(digest) for name, digest in record["checkpoints"].items()}
        names = [str(record["estimator"]), *(str(name) for name in record["classifiers"])]
        leaving = any(Path(name).is_absolute() or ".." in Path(name).parts for name in names)
        if len(names) != len(sigmas) + 1 or not set(names) <= set(files) or leaving:
            raise ValueError("checkpoints do not fit the levels")
        sigma_e, classes = float(record["sigma_e"]), tuple(str(c) for c in record["classes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{root / RECORD} is damaged ({error}); train again in another directory") from error
    networks: dict[str, Network | Path] = {}
    for name in dict.fromkeys(names):
        network = root / name if name.endswith(".onnx") else load_checkpoint(root / name).network()
        if not (root / name).is_file() or sha256_of(root / name) != files[name]:
            raise InputError(f"{root / name} is not the network that the run finished with; train again")
        networks[name] = network
    estimator = networks[names[0]]
    if isinstance(estimator, Path):
        raise InputError(f"{root / RECORD} is damaged (the estimator is an ONNX file); train again elsewhere")
    return Run(
        path=root,
        estimator=estimator,
        classifiers=tuple(networks[name] for name in names[1:]),
        sigmas=sigmas,
        sigma_e=sigma_e,
        classes=classes,
        input_shape=(channels, height, width),
        record=record,
    )


def read_record(root: Path) -> dict[str, Any] | None:
    """The contents of run.json, or None where there is none; raises `InputError` where it is damaged."""
    path = root / RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path} ({error}); train again in another directory") from error
    if not isinstance(record, dict) or (record.get("format"), record.get("version")) != (FORMAT, VERSION):
        raise InputError(f"{path} is not a {FORMAT} record of version {VERSION}; train again in another directory")
    return record


def write_json(path: Path, values: Any) -> None:
    """Write `values` atomically as indented JSON."""
    write_atomically(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """What the numbers of a run depend on, apart from its configuration."""
    return {"python": platform.python_version(), "torch": torch.__version__}


def code_version() -> dict[str, Any]:
    """`commit` and `dirty` of the git checkout that this code runs from; empty where it runs from elsewhere."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": git("status", "--porcelain") != ""}
    except (OSError, subprocess.SubprocessError):
        return {}


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold `root` for this process; raises `InputError` where another one trains in it."""
    with open(root / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process trains in {root}; wait for it or choose another --out") from error
        yield
