"""Fill a Triton model repository from a bundle."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

from dualsmooth.runtime.bundle.reading import Bundle, read_bundle
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.engine.opening import check_batch_size, open_engine
from dualsmooth.runtime.engine.providers import provider_of
from dualsmooth.runtime.engine.providers.cpu import Cpu
from dualsmooth.runtime.errors import InputError
from dualsmooth.runtime.files import sync_folder, sync_tree
from dualsmooth.runtime.serving.protocol import IN_PROCESS, MANIFEST, MODEL, PLACEMENT, PLACEMENTS, STREAM

TEMPLATES = Path(__file__).absolute().parents[2] / "triton_repo"
_GRAPH_LEVELS = {"extended": 1, "basic": -1, "disabled": 2}
"""Graph optimisation as Triton's ONNX Runtime backend numbers it; without a number, all of it."""


def model_names(bundle: Bundle) -> dict[str, str]:
    """The Triton model that serves each ONNX file.

    `variance_estimator` where there is a router, and `classifier` where one serves all levels; else
    `classifier_<level>` for each expert, named after the first level that it serves. The members of an ensemble get
    `_<member>` behind it.
    """
    names: dict[str, str] = {}
    one = len(set(bundle.classifiers)) == 1
    router = [] if bundle.estimator is None else [("variance_estimator", bundle.estimator)]
    for stage, model in router + [
        ("classifier" if one else f"classifier_{level}", model) for level, model in enumerate(bundle.classifiers)
    ]:
        for number, file in enumerate(model.members):
            names.setdefault(file, stage if len(model.members) == 1 else f"{stage}_{number}")
    return names


def fill_repository(
    bundle: str | Path,
    out: str | Path,
    *,
    placement: str = IN_PROCESS,
    provider: str = "cpu",
    threads: int = 0,
    batch_size: int | str = 256,
    provider_options: Mapping[str, Any] | None = None,
    allow_seed: bool = False,
) -> list[str]:
    """Write a model repository for the bundle at `bundle` to the new folder `out`; returns the models' names.

    `placement`: whether `dual_smoothing` runs the networks itself (`in-process`) or through the base models on the same
    server (`bls`). `allow_seed`: let clients choose their noise, e.g. on a server for tests, on loopback. Raises
    `InputError`, `BundleError`; then `out` is not there.
    """
    out = Path(out)
    if placement not in PLACEMENTS:
        raise InputError(f"engine {placement!r} is unknown; expected {' or '.join(PLACEMENTS)}")
    tuned = dict(provider_options or {})
    provider_of(provider, tuned)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists; expected a new or empty folder for the model repository")
    check_batch_size(batch_size)
    files = read_bundle(bundle)
    engine, batch_size = open_engine(files, Cpu(), threads=threads, batch_size=batch_size)
    values = {PLACEMENT: placement, "provider": provider, "threads": threads, "batch_size": batch_size}
    values["allow_seed"] = str(allow_seed).lower()
    values["provider_options"] = quoted(";".join(f"{name}={value}" for name, value in tuned.items()))
    values[MANIFEST] = quoted((files.path / "manifest.json").read_text(encoding="utf-8"))
    with _new_folder(out) as work:
        for name in (MODEL, MODEL + STREAM):
            _add_served(work / name, files, _filled(name, **values))
        for file, name in model_names(files).items():
            _add_base(work / name, files.path / file, _base_config(files, engine, file, name, batch_size))
    return sorted(path.name for path in out.iterdir())


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when the block ends, and goes away where it raises: `InputError` where
    nothing can be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose a folder that can be written") from error
    try:
        yield work
        work.chmod(0o755)
        sync_tree(work)
        work.rename(out)
        sync_folder(out.parent)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if isinstance(error, OSError):
            raise InputError(
                f"cannot fill {out}: {error.strerror}; free some space or choose another folder"
            ) from error
        raise


def _add_served(model: Path, bundle: Bundle, config: str) -> None:
    """A model that certifies, with the bundle beside it."""
    (model / "1" / "bundle").mkdir(parents=True)
    (model / "config.pbtxt").write_text(config, encoding="utf-8")
    shutil.copyfile(TEMPLATES / MODEL / "1" / "model.py", model / "1" / "model.py")
    for file in ("manifest.json", *bundle.files):
        shutil.copyfile(bundle.path / file, model / "1" / "bundle" / file)


def _add_base(model: Path, network: Path, config: str) -> None:
    """A plain base model."""
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(config)
    shutil.copyfile(network, model / "1" / "model.onnx")


def quoted(text: str) -> str:
    """The inside of a string in Triton's text format: everything but printable ASCII becomes octal escapes."""
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"\"\\'" else f"\\{byte:03o}" for byte in text.encode("utf-8")
    )


def _base_config(bundle: Bundle, engine: OnnxEngine, file: str, name: str, batch_size: int) -> str:
    """Batched dynamically, unless the network takes a scalar `sigma`: that cannot differ within a batch."""
    estimator = bundle.estimator is not None and file in bundle.estimator.members
    shape = ", ".join(map(str, bundle.input_shape))
    width = str(len(bundle.sigmas) if estimator else len(bundle.classes))
    stage = "variance_estimator" if estimator else "classifier"
    if engine.file_takes_sigma(file):
        sigma = ',\n  { name: "sigma" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }'
        parts: dict[str, Any] = {"max_batch": 0, "x_dims": f"-1, {shape}", "logits_dims": f"-1, {width}"}
        parts |= {"sigma_input": sigma, "batching": "# conditional on sigma: requests of one level each, not batched"}
    else:
        parts = {"max_batch": batch_size, "x_dims": shape, "logits_dims": width, "sigma_input": ""}
        parts["batching"] = "dynamic_batching { max_queue_delay_microseconds: 500 }"
    if level := _GRAPH_LEVELS.get(engine.optimisation(file)):
        parts["batching"] += f"\n\noptimization {{ graph {{ level: {level} }} }}"
    return _filled(stage, name=name, **parts)


def _filled(template: str, **values: object) -> str:
    return Template((TEMPLATES / template / "config.pbtxt").read_text(encoding="utf-8")).substitute(
        {key: str(value) for key, value in values.items()}
    )
