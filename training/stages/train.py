"""A run: classifier, labels, estimator, metrics. Each stage resumes where a killed process left off."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dualsmooth.runtime.datasets.image_files import ImageFiles
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import sha256_of, write_atomically
from dualsmooth.training.config import Config, config_from, difference, fitted, read_toml
from dualsmooth.training.data import TrainingData, load_training_data, training_images
from dualsmooth.training.loop.distributed import data_parallel, rank_and_size
from dualsmooth.training.loop.precision import settled
from dualsmooth.training.run import record as files
from dualsmooth.training.run.borrow import take_over
from dualsmooth.training.run.record import now, read_record, write_json
from dualsmooth.training.run.sources import Borrowed, Source, gathered, named_in, picked_of, told
from dualsmooth.training.stages.forecast import Forecast
from dualsmooth.training.stages.outlook import Find, parts_left
from dualsmooth.training.stages.stages import Work, check_estimator, run_rounds

Runs = str | Path | Sequence[str | Path] | None
"""Runs to take over from, each as `Source.parsed` reads it."""


@data_parallel
def train(
    config: Config,
    out: str | Path,
    *,
    threads: int = 2,
    device: str = "cpu",
    reuse: Runs = None,
    given: Collection[str] | None = None,
    forecast: bool = False,
    command: str = "dualsmooth.training.train",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train classifier and estimator into the run directory `out`, or go on with what is there; returns the metrics.

    Settings that nobody has chosen fit themselves to few images, and say so: `given` are the keys of those that stay as
    they are (default: all that differ from their defaults).

    The result depends on `config` and the images only (for one machine, one set of library versions and one `threads`),
    not on how often the run was interrupted. A finished run is left alone. A new run takes over from the run directory
    `reuse`, or from several, the stages that both configurations share, or what is asked for by name (RUN=0.25,0.5,
    RUN=estimator), and says so in its record. `forecast` tries a few steps first and says how long each part will take.
    Raises `InputError` where `out` holds anything else.
    """
    root, sources = Path(out), sources_of(reuse)
    _check_device(device)
    config, data, chosen = prepared(config, root, sources, given, device)
    made = not root.exists()
    _occupy(root)
    with files.locked(root), _emptied_on_failure(root, made):
        _claim(root, config)
        record = read_record(root)
        if record is not None and record.get("finished") is True:
            say(finished(root, config))
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
        record = _begin(root, config, data, record, [*sessions, session], sources)
        left = _forecast(config, data, threads, device, find_in(root), say) if forecast else Forecast()
        picked = picked_of(record.get("borrowed"))
        metrics = run_rounds(Work(root, config, data, threads, device, say, session["seconds"], left, picked))
        checkpoints = {name: sha256_of(root / name) for name in (record["estimator"], *record["classifiers"])}
        write_json(root / files.METRICS, metrics)
        write_json(root / files.RECORD, {**record, "finished": True, "checkpoints": checkpoints, "metrics": metrics})
        say(finished(root, config))
        return metrics


def finished(root: Path, config: Config) -> str:
    """What to do with a run that is finished."""
    data = shlex.quote(config.dataset)
    return (
        f"run {root} is finished; next, what it is worth beside each noise level alone:\n"
        f"  dualsmooth export {shlex.quote(str(root))} --out BUNDLE\n"
        f"  dualsmooth evaluate BUNDLE --dataset {data} --max 100 --all-levels --out results.jsonl\n"
        "  dualsmooth report results.jsonl --rule single --rule interval"
    )


def forecast_run(
    config: Config, out: str | Path, *, threads: int = 2, device: str = "cpu", reuse: Runs = None,
    given: Collection[str] | None = None, say: Callable[[str], None] = print,
) -> Forecast:  # fmt: skip
    """Say how long `train` would take with the same arguments, from a few steps; writes nothing."""
    root, sources = Path(out), sources_of(reuse)
    _check_device(device)
    config, data, chosen = prepared(config, root, sources, given, device)
    for line in chosen:
        say(line)
    torch.set_num_threads(threads)
    record = read_record(root)
    data = data or load_training_data(config, record["classes"] if record else ())
    offers = gathered(sources, config, data.classes, data.input_shape) if sources and record is None else []
    taken = {name: path for offer in offers for name, path in offer.files.items()}
    return _forecast(config, data, threads, device, lambda name: find_in(root)(name) or taken.get(name), say)


def _forecast(
    config: Config, data: TrainingData, threads: int, device: str, find: Find, say: Callable[[str], None]
) -> Forecast:  # fmt: skip
    """The forecast, which is said at once; none where several processes train."""
    if rank_and_size()[1] > 1:
        say("no forecast: several processes train together")
        return Forecast()
    say("a few steps of each network are tried, for the forecast")
    made = Forecast(parts_left(config, data, threads, device, find), say)
    for line in made.lines():
        say(line)
    return made


def find_in(root: Path) -> Find:
    """Looks for files in a run directory."""
    return lambda name: root / name if (root / name).is_file() else None


def sources_of(reuse: Runs) -> list[Source]:
    """The runs that are named, as sources."""
    return [Source.parsed(run) for run in ([reuse] if isinstance(reuse, str | Path) else reuse or ())]


def prepared(
    config: Config, root: Path, sources: Sequence[Source], given: Collection[str] | None, device: str
) -> tuple[Config, TrainingData | None, list[str]]:
    """The configuration that a run takes, on this machine and these images; the data, where the run is new; and what is
    to be said about it. Bad input is found here, and leaves nothing behind."""
    saved = saved_config(root)
    lines: list[str] = []
    began = saved or next((found for source in sources if (found := saved_config(source.path))), None)
    config, data = settled(config, began, device, lines.append), None
    if saved is None or difference(saved, config):  # a run that goes on is fitted
        dataset = training_images(config)
        config, lowered = fitted(config, len(dataset), given)
        lines += lowered
        if saved is None:
            data = load_training_data(config, dataset=dataset)
            check_estimator(config, data)
    return config, data, lines


def _begin(
    root: Path,
    config: Config,
    data: TrainingData,
    old: dict[str, Any] | None,
    sessions: list[dict[str, Any]],
    sources: Sequence[Source],
) -> dict[str, Any]:
    """Write the record of a session that begins, and take over what it has from other runs; returns the record.

    The record is there before the first file is copied, and says until the last one is that they are on the way: a run
    that was killed in between copies them again, and never has networks that it does not account for.
    """
    if old is not None and old.get("classes") != list(data.classes):
        raise InputError(f"{config.dataset} has other classes than when {root} was started; choose another --out")
    known = (old or {}).get("borrowed")
    if old is not None:
        sources = sources_of(named_in(known)) if known and old.get("copying") else ()
    if not sources:
        record = _new_record(config, data, sessions, known)
    else:
        offers = gathered(sources, config, data.classes, data.input_shape)
        borrowed = told(offers)
        if known and known != borrowed:
            raise InputError(
                f"run {root} was taking over files of other runs, which changed since; choose another --out"
            )
        record = _new_record(config, data, sessions, borrowed)
        write_json(root / files.RECORD, {**record, "copying": True})
        for offer in offers:
            take_over(offer, root)
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
    config: Config, data: TrainingData, sessions: list[dict[str, Any]], borrowed: Borrowed | None
) -> dict[str, Any]:
    last = Path(files.round_folder(config.rounds - 1))
    return {
        "format": files.FORMAT,
        "version": files.VERSION,
        "finished": False,
        "dataset": config.dataset,
        "classes": list(data.classes),
        "input_shape": list(data.input_shape),
        **({"resize": data.images.resize} if isinstance(data.images, ImageFiles) else {}),
        "sigmas": list(config.sigmas),
        "sigma_e": config.sigma_e,
        "seed": config.seed,
        "estimator": str(last / files.ESTIMATOR),
        "classifiers": [str(last / name) for name in files.classifier_names(config)],
        "sessions": sessions,
        **({"borrowed": borrowed} if borrowed else {}),
    }
