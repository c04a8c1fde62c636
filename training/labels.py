"""Votes of a base model on noisy copies, and the estimator's labels made from them. Runs on ONNX Runtime."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from dualsmooth.runtime.bounds import lower_bound, normal_quantile
from dualsmooth.runtime.errors import EngineError, InputError
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.noise import add_noise
from dualsmooth.training.config import Config
from dualsmooth.training.data import Images, TrainingData
from dualsmooth.training.models import Network
from dualsmooth.training.progress import Progress
from dualsmooth.training.seeds import Stream, numpy_generator

Counts = npt.NDArray[np.int64]
_PASSES = 256


class Voter:
    """A base model that counts arg-max votes; safe to use from several threads, each running its own passes."""

    def __init__(self, onnx_bytes: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
        self._takes_sigma = any(value.name == "sigma" for value in self._session.get_inputs())

    def votes(self, image: Images, sigma: float, count: int, generator: np.random.Generator) -> Counts:
        """Votes [classes] over `count` noisy copies of one uint8 image [C,H,W]; not a single pass may fail."""
        clean = image.astype(np.float32) / np.float32(255)
        buffer = np.empty((min(count, _PASSES), *image.shape), np.float32)
        level = {"sigma": np.asarray(sigma, np.float32)} if self._takes_sigma else {}
        totals: Counts | None = None
        for start in range(0, count, _PASSES):
            noisy = buffer[: count - start]
            add_noise(generator, clean, sigma, noisy)
            logits = self._session.run(["logits"], {"x": noisy, **level})[0]
            if not np.isfinite(logits).all():
                raise EngineError("the network gave logits that are not finite; train it again with a lower lr")
            counted = np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])
            totals = counted if totals is None else totals + counted
        if totals is None:
            raise InputError("0 votes were asked for; expected at least 1")
        return totals


def voter_of(network: Network, input_shape: tuple[int, int, int]) -> Voter:
    """A voter of the network as it is now; ONNX Runtime is several times faster here than the network in torch."""
    from dualsmooth.export.graph import to_onnx

    return Voter(to_onnx(network, input_shape))


def certified_radii(successes: Counts, votes: int, sigmas: Sequence[float], alpha: float) -> npt.NDArray[np.float64]:
    """R_c(x, sigma_i), the certified radius of the true label [N,K]; 0 where it is not certified.

    `successes` [N,K] of `votes` votes went to the true label, which no vote selected: each radius holds with
    probability at least 1 - alpha. Source: Cohen et al. 2019, Theorem 1; Dual RS, section on training.
    """
    return np.asarray(sigmas) * np.maximum(normal_quantile(lower_bound(successes, votes, alpha)), 0.0)


def label_indices(count: int, config: Config) -> npt.NDArray[np.int64]:
    """Which of `count` training images are labelled: a sample by seed, in the order of its shards."""
    wanted = config.labels.images or count
    if wanted > count:
        raise InputError(f"labels.images is {wanted} but there are {count} training images; lower it, or 0 for all")
    return numpy_generator(config.seed, Stream.LABELS).permutation(count)[:wanted].astype(np.int64)


def label_votes(folder: Path, data: TrainingData, classifier: Voter, config: Config, *, threads: int = 2) -> Counts:
    """Votes for the true label [N,K] of the images `label_indices`, at each of the K levels.

    Work is cut into shards of `labels.shard` images, each with its own generator and its own file in `folder`, so
    that votes do not depend on `threads` and a killed run counts on from the last finished shard.
    """
    settings, index = config.labels, label_indices(len(data.images), config)
    starts = range(0, len(index), settings.shard)
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:05d}.npy" for number in range(len(starts))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    passes = len(config.sigmas) * settings.votes
    sizes = [len(index[start : start + settings.shard]) for start in starts]
    finished = passes * (len(index) - sum(sizes[number] for number in missing))
    progress = Progress("labels", passes * len(index), "passes", done=finished)

    def count(number: int) -> None:
        rows = index[starts[number] : starts[number] + settings.shard]
        generator = numpy_generator(config.seed, Stream.LABELS, number)
        votes = [
            [classifier.votes(image, sigma, settings.votes, generator)[label] for sigma in config.sigmas]
            for image, label in zip(data.images[rows], data.labels[rows], strict=True)
        ]
        _save_array(paths[number], np.array(votes, np.int64))
        progress.advance(passes * len(rows))

    with ThreadPoolExecutor(threads) as pool:
        try:
            list(pool.map(count, missing))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return np.concatenate([_load_array(p, (n, len(config.sigmas))) for p, n in zip(paths, sizes, strict=True)])


def _save_array(path: Path, array: Counts) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getvalue())


def _load_array(path: Path, shape: tuple[int, int]) -> Counts:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and run `dualsmooth train` again") from error
    if array.shape != shape or array.dtype != np.int64:
        raise InputError(f"{path} holds {array.dtype} {array.shape}, expected int64 {shape}; delete it and train again")
    return np.asarray(array, np.int64)
