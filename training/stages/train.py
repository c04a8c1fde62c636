"""A run: classifier, labels, estimator, metrics. Each stage resumes where a killed process left off."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import sha256_of, write_atomically
from dualsmooth.training.config import Config, config_from, difference, fitted, read_toml
from dualsmooth.training.data import TrainingData, load_training_data, training_images
from dualsmooth.training.loop.distributed import data_parallel
from dualsmooth.training.loop.precision import settled
from dualsmooth.training.run import record as files
from dualsmooth.training.run.borrow import offered, take_over
from dualsmooth.training.run.record import now, read_record, write_json
from dualsmooth.training.stages.stages import Work, check_estimator, run_rounds


@data_parallel
def train(
    config: Config,
    out: str | Path,
    *,
    threads: int = 2,
    device: str = "cpu",
    reuse: str | Path | None = None,
    given: Collection[str] | None = None,
    command: str = "dualsmooth.training.train",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train classifier and estimator into the run directory `out`, or go on with what is there; returns the metrics.

    Settings that nobody has chosen fit themselves to few images, and say so: `given` are the keys of those that stay as
    they are (default: all that differ from their defaults).

    The result depends on `config` and the images only (for one machine, one set of library versions and one `threads`),
    not on how often the run was interrupted. A finished run is left alone. A new run takes over from the run directory
    `reuse` the stages that both configurations share, and says so in its record. Raises `InputError` where `out` holds
    anything else.
    """
    root = Path(out)
    _check_device(device)
    saved = saved_config(root)
    chosen: list[str] = []
    config = settled(config, saved or (saved_config(Path(reuse)) if reuse else None), device, chosen.append)
    data = None
    if saved is None or difference(saved, config):  # a run that goes on is fitted
        dataset = training_images(config)
        config, lines = fitted(config, len(dataset), given)
        chosen += lines
        if saved is None:  # bad input leaves nothing behind
            data = load_training_data(config, dataset=dataset)
            check_estimator(config, data)
    made = not root.exists()
    _occupy(root)
    with files.locked(root), _emptied_on_failure(root, made):
        _claim(root, config)
        record = read_record(root)
        if record is not None and record.get("finished") is True:
            say(f"run {root} is finished; export it with `dualsmooth export {root} --out BUNDLE`")
            metrics: dict[str, Any] = record["metrics"]
            return metrics
        for line in chosen:
            say(line)
        torch.set_num_threads(threads)
        data = data or load_training_data(config, record["classes"] if record else ())
        if config.experts:
            say(f"the experts' outputs are taken to be, in this order: {', '.join(data.classes[:20])}")
        sessions = record["sessions"] if record is not None else []
        session: dict[str, Any] = {
            "command": command, "started": now(), "threads": threads, "device": device,
            **files.code_version(), "versions": files.versions(), "seconds": {},
        }  # fmt: skip
        record = _begin(root, config, data, record, [*sessions, session], reuse)
        metrics = run_rounds(Work(root, config, data, threads, device, say, session["seconds"]))
        checkpoints = {name: sha256_of(root / name) for name in (record["estimator"], *record["classifiers"])}
        write_json(root / files.METRICS, metrics)
        write_json(root / files.RECORD, {**record, "finished": True, "checkpoints": checkpoints, "metrics": metrics})
        say(f"run {root} is finished; export it with `dualsmooth export {root} --out BUNDLE`")
        return metrics


def _begin(
    root: Path,
    config: Config,
    data: TrainingData,
    old: dict[str, Any] | None,
    sessions: list[dict[str, Any]],
    reuse: str | Path | None,
) -> dict[str, Any]:
    """Write the record of a session that begins, and take over what it has from another run; returns the record.

    The record is there before the first file is copied, and says until the last one is that they are on the way: a run
    that was killed in between copies them again, and never has networks that it does not account for.
    """
    if old is not None and old.get("classes") != list(data.classes):
        raise InputError(f"{config.dataset} has other classes than when {root} was started; choose another --out")
    known = (old or {}).get("borrowed")
    source = reuse if old is None else known["path"] if known and old.get("copying") else None
    if not source:
        record = _new_record(config, data, sessions, known)
    else:
        names, borrowed = offered(Path(source), config)
        if known and known["files"] != borrowed["files"]:
            raise InputError(f"run {root} was taking over files of {source}, which changed since; choose another --out")
        record = _new_record(config, data, sessions, borrowed)
        write_json(root / files.RECORD, {**record, "copying": True})
        take_over(Path(source), names, root)
    write_json(root / files.RECORD, record)
    return record


def saved_config(root: Path) -> Config | None:
    """The configuration saved in a run directory, or None where there is none."""
    path = root / files.CONFIG
    return config_from(read_toml(path), str(path)) if path.is_file() else None


def _occupy(root: Path) -> None:
    """Make the folder `root`, or check that nothing but a run is in it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        occupied = any(not path.name.startswith(".") for path in root.iterdir())  # a kill may leave .config.toml.*
    except OSError as error:
        raise InputError(f"cannot use {root} as a run directory ({error.strerror}); choose another --out") from error
    if occupied and saved_config(root) is None:
        raise InputError(f"{root} holds other files; choose an empty or new directory with --out")


def _claim(root: Path, config: Config) -> None:
    """Make `root`, which is locked, the directory of a run with `config`, or check that it is one. A start that was
    stopped before it did anything gives way."""
    saved = saved_config(root)
    found = None if saved is None else difference(saved, config)
    if found and _has_work(root):
        raise InputError(f"{root} is a run with another configuration ({found}); choose another --out")
    if found:
        _remove_start(root)
    if saved is None or found:
        write_atomically(root / files.CONFIG, config.to_toml())


def _has_work(root: Path) -> bool:
    """Whether anything was trained, or labelled, or measured."""
    return (root / files.METRICS).exists() or any(path.suffix in (".pt", ".npy") for path in root.rglob("*"))


def _remove_start(root: Path) -> None:
    for name in (files.CONFIG, files.RECORD, *(path.name for path in root.glob("classifier_*.onnx"))):
        (root / name).unlink(missing_ok=True)


@contextmanager
def _emptied_on_failure(root: Path, made: bool) -> Iterator[None]:
    """Where the inside fails before it has done any work, leave nothing behind: the files of the start are removed, and
    `root` itself if it was `made` for it."""
    try:
        yield
    except Exception:
        if not _has_work(root):
            _remove_start(root)
            if made:
                shutil.rmtree(root, ignore_errors=True)
        raise


def _check_device(device: str) -> None:
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InputError(f"device {device!r} is unknown; expected cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for but torch finds none; check the driver, or pass --device cpu")


def _new_record(
    config: Config, data: TrainingData, sessions: list[dict[str, Any]], borrowed: dict[str, Any] | None
) -> dict[str, Any]:
    last = Path(files.round_folder(config.rounds - 1))
    return {
        "format": files.FORMAT,
        "version": files.VERSION,
        "finished": False,
        "dataset": config.dataset,
        "classes": list(data.classes),
        "input_shape": list(data.input_shape),
        "sigmas": list(config.sigmas),
        "sigma_e": config.sigma_e,
        "seed": config.seed,
        "estimator": str(last / files.ESTIMATOR),
        "classifiers": [str(last / name) for name in files.classifier_names(config)],
        "sessions": sessions,
        **({"borrowed": borrowed} if borrowed else {}),
    }
