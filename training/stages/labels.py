"""Votes of a base model on noisy copies, and the estimator's labels made from them. Runs on ONNX Runtime."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from dualsmooth.runtime.errors import EngineError, InputError
from dualsmooth.runtime.evaluation.progress import Progress
from dualsmooth.runtime.files import write_atomically
from dualsmooth.runtime.noise.add import add_noise
from dualsmooth.runtime.statistics.bounds import lower_bound, normal_quantile, upper_bound
from dualsmooth.training.config import Config, LabelConfig
from dualsmooth.training.data import Images, Labels, TrainingData
from dualsmooth.training.networks.network import Network
from dualsmooth.training.seeds import Randomness, numpy_generator

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
_PASSES = 256
_FIRST_LOOK = 8
_DEPLOYED = 10_000, 5e-4
"""The votes, and the share of alpha, of the certificates that labels from margins look forward to."""


class Voter:
    """A base model that counts arg-max votes; safe to use from several threads, each running its own passes."""

    def __init__(self, onnx_bytes: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
        self._conditional = "sigma" in {tensor.name for tensor in self._session.get_inputs()}

    def votes(self, image: Images, sigma: float, count: int, generator: np.random.Generator) -> Counts:
        """Votes [classes] over `count` noisy copies of one uint8 image [C,H,W]; not a single pass may fail."""
        totals = self.votes_of_many(image[None], sigma, count, generator)
        return np.asarray(totals[0], np.int64)

    def votes_of_many(self, images: Images, sigma: float, count: int, generator: np.random.Generator) -> Counts:
        """Votes [N,classes] over `count` noisy copies of each uint8 image [N,C,H,W], packed into full batches."""
        totals: Counts | None = None
        for owner, logits in self._passes(images, sigma, count, generator):
            if totals is None:
                totals = np.zeros((len(images), logits.shape[1]), np.int64)
            np.add.at(totals, (owner, logits.argmax(axis=1)), 1)
        assert totals is not None
        return totals

    def margins_of_many(
        self, images: Images, labels: Labels, sigma: float, count: int, generator: np.random.Generator
    ) -> Floats:
        """Votes for the true `labels` [N] over `count` noisy copies of each image, and the sums of their margins and of
        the squares of these [N,3]; a pass's margin is the true label's logit less the largest other one."""
        totals = np.zeros((len(images), 3))
        for owner, logits in self._passes(images, sigma, count, generator):
            rows, truth = np.arange(len(owner)), labels[owner]
            votes = logits.argmax(axis=1) == truth
            own = logits[rows, truth].astype(np.float64)
            logits[rows, truth] = -np.inf
            margins = own - logits.max(axis=1)
            np.add.at(totals, owner, np.stack([votes, margins, margins**2], axis=1))
        return totals

    def _passes(
        self, images: Images, sigma: float, count: int, generator: np.random.Generator
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Batches of passes: whose they are [B], and their logits [B,classes]."""
        if count < 1 or not len(images):
            raise InputError(f"{count} votes of {len(images)} images were asked for; expected at least 1 of each")
        clean = images.astype(np.float32) / np.float32(255)
        noisy = np.empty((min(count * len(images), _PASSES), *images.shape[1:]), np.float32)
        feed = {"sigma": np.asarray(sigma, np.float32)} if self._conditional else {}
        for start in range(0, count * len(images), _PASSES):
            owner = np.arange(start, min(start + _PASSES, count * len(images))) // count
            batch = noisy[: len(owner)]
            add_noise(generator, clean[owner], sigma, batch)
            logits = self._session.run(["logits"], {"x": batch, **feed})[0]
            if not np.isfinite(logits).all():
                raise EngineError("the network gave logits that are not finite; train it again with a lower lr")
            yield owner, logits


def voter_of(network: Network, input_shape: tuple[int, int, int]) -> Voter:
    """A voter of the network as it is now; ONNX Runtime is several times faster here than the network in torch."""
    from dualsmooth.export.onnx.graph import to_onnx

    return Voter(to_onnx(network, input_shape))


def cohen_radii(successes: Counts, votes: int, sigmas: Sequence[float], alpha: float) -> Floats:
    """R_c(x, sigma_i), the certified radius of the true label [N,K]; 0 where it is not certified.

    `successes` [N,K] of `votes` votes went to the true label, which no vote selected: each radius holds with
    probability at least 1 - alpha. Source: Cohen et al. 2019, Theorem 1; Dual RS, section on training.
    """
    return np.asarray(sigmas) * np.maximum(normal_quantile(lower_bound(successes, votes, alpha)), 0.0)


class LabelVotes(NamedTuple):
    """What was drawn for the labels, each [N,K]: votes for the true label, passes, and the sums of the passes' margins
    and of their squares."""

    hits: Floats
    passes: Floats
    margins: Floats
    squares: Floats


def label_radii(drawn: LabelVotes, settings: LabelConfig, sigmas: Sequence[float]) -> Floats:
    """The radii [N,K] that the estimator learns from. Training targets, not certificates.

    `settings.radii` "votes": what `settings.votes` passes would certify, were the share of hits right in all of them.
    Where all votes were drawn this is `cohen_radii`; where the race ended early it is its extrapolation.

    "margins": sigma * mean / deviation of the margins, which is sigma * Phi^-1(p) where margins are Gaussian, up to
    what 10,000 votes can certify. A few passes then tell radii apart that would take thousands of votes.
    """
    if settings.radii == "votes":
        return _radii_at(drawn.hits / drawn.passes, settings, sigmas)
    mean = drawn.margins / drawn.passes
    variance = (drawn.squares - drawn.margins * mean) / np.maximum(drawn.passes - 1, 1)
    most = float(normal_quantile(lower_bound(_DEPLOYED[0], *_DEPLOYED)))
    return np.asarray(sigmas) * np.clip(mean / np.sqrt(np.maximum(variance, 1e-12)), 0.0, most)


def _radii_at(share: Floats, settings: LabelConfig, sigmas: Sequence[float]) -> Floats:
    votes = settings.votes
    return cohen_radii(np.floor(share * votes + 1e-9).astype(np.int64), votes, sigmas, settings.alpha)


def label_indices(count: int, config: Config) -> npt.NDArray[np.int64]:
    """Which of `count` training images are labelled: a sample by seed, in the order of its shards."""
    wanted = config.labels.images or count
    if wanted > count:
        raise InputError(f"labels.images is {wanted} but there are {count} training images; lower it, or 0 for all")
    return numpy_generator(config.seed, Randomness.LABELS).permutation(count)[:wanted].astype(np.int64)


def label_votes(
    folder: Path, data: TrainingData, index: npt.NDArray[np.int64], experts: Sequence[Voter], config: Config,
    *, key: tuple[int, ...] = (), threads: int = 2,
) -> LabelVotes:  # fmt: skip
    """Votes for the true label, passes drawn and margins of the images `index` [N] at each of the K levels.

    `experts[k]` serves level k. The levels of an image race: after 8, 16, 32, … and at last `labels.votes` passes, a
    level whose radius cannot be the largest is sampled no further (each comparison errs with probability
    `labels.doubt`; 0 draws every vote). Work is cut into shards of `labels.shard` images, each with its own generator
    (of the seed, `key` and its number) and its own file in `folder`, so that votes do not depend on `threads` and a
    killed run counts on from the last finished shard.
    """

    def count(number: int, rows: npt.NDArray[np.int64]) -> Floats:
        generator = numpy_generator(config.seed, Randomness.LABELS, *key, number)
        return np.stack(_race(np.asarray(data.images[rows]), data.labels[rows], experts, config, generator), axis=1)

    shape = (len(LabelVotes._fields), len(config.sigmas))
    drawn = _in_shards("labels", folder, index, shape, np.float64, count, config.labels.shard, threads)
    return LabelVotes(*np.moveaxis(drawn, 1, 0))


def route_votes(folder: Path, data: TrainingData, estimator: Voter, config: Config, *, threads: int = 2) -> Counts:
    """Votes [N,K] of the estimator on `finetune.votes` noisy copies of each training image; in shards, resumable."""

    def count(number: int, rows: npt.NDArray[np.int64]) -> Counts:
        generator = numpy_generator(config.seed, Randomness.ROUTES, number)
        return estimator.votes_of_many(np.asarray(data.images[rows]), config.sigma_e, config.finetune.votes, generator)

    everything, shape = np.arange(len(data.images), dtype=np.int64), (len(config.sigmas),)
    return _in_shards("routes", folder, everything, shape, np.int64, count, config.labels.shard, threads)


def _in_shards(
    name: str, folder: Path, index: npt.NDArray[np.int64], shape: tuple[int, ...], dtype: npt.DTypeLike,
    count: Callable[[int, npt.NDArray[np.int64]], Array], size: int, threads: int,
) -> Array:  # fmt: skip
    """`count(number, rows)` [rows, *shape] of each shard of `index`, from its file in `folder` where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [
        (index[start : start + size], folder / f"{start // size:05d}.npy") for start in range(0, len(index), size)
    ]
    missing = [number for number, (_, path) in enumerate(shards) if not path.exists()]
    left = sum(len(shards[number][0]) for number in missing)
    progress = Progress(name, len(index), "images", done=len(index) - left)

    def fill(number: int) -> None:
        rows, path = shards[number]
        _save_array(path, count(number, rows))
        progress.advance(len(rows))

    with ThreadPoolExecutor(threads) as pool:
        try:
            list(pool.map(fill, missing))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return np.concatenate([_load_array(path, (len(rows), *shape), np.dtype(dtype)) for rows, path in shards])


def _race(
    images: Images, labels: Labels, experts: Sequence[Voter], config: Config, generator: np.random.Generator
) -> LabelVotes:
    """A race of the levels of each image; see `label_votes`."""
    settings = config.labels
    drawn = LabelVotes(*np.zeros((len(LabelVotes._fields), len(images), len(experts))))
    racing = np.ones(drawn.hits.shape, bool)
    for look in _looks(settings):
        for level, (expert, sigma) in enumerate(zip(experts, config.sigmas, strict=True)):
            rows = np.flatnonzero(racing[:, level])
            if len(rows):
                more = look - int(drawn.passes[rows[0], level])
                totals = expert.margins_of_many(images[rows], labels[rows], sigma, more, generator)
                for place, total in zip((drawn.hits, drawn.margins, drawn.squares), totals.T, strict=True):
                    place[rows, level] += total
                drawn.passes[rows, level] = look
        if settings.doubt > 0:
            racing &= contenders(drawn.hits, drawn.passes, settings, config.sigmas)
    return drawn


def contenders(
    hits: npt.ArrayLike, passes: npt.ArrayLike, settings: LabelConfig, sigmas: Sequence[float]
) -> npt.NDArray[np.bool_]:
    """Which levels [N,K] may still have the largest radius of their image; none where it is plain which one has.

    A level is out when the radius at the upper bound of its share of hits is below the radius at the lower bound of
    another level's, or is 0; both bounds are Clopper-Pearson at error probability `settings.doubt`.
    """
    low = _radii_at(lower_bound(hits, passes, settings.doubt), settings, sigmas)
    high = _radii_at(upper_bound(hits, passes, settings.doubt), settings, sigmas)
    best_other = np.stack([np.delete(low, k, axis=1).max(axis=1, initial=0.0) for k in range(len(sigmas))], axis=1)
    open_ = high > best_other
    return np.asarray(open_ & (open_.sum(axis=1, keepdims=True) > 1), np.bool_)


def fewest_passes(settings: LabelConfig) -> int:
    """Passes of an image at each level where the race is over at its first look."""
    return _looks(settings)[0]


def _looks(settings: LabelConfig) -> list[int]:
    if settings.doubt == 0:
        return [settings.votes]
    looks, look = [], _FIRST_LOOK
    while look < settings.votes:
        looks.append(look)
        look *= 2
    return [*looks, settings.votes]


def _save_array(path: Path, array: Array) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getvalue())


def _load_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and run `dualsmooth train` again") from error
    if array.shape != shape or array.dtype != dtype:
        raise InputError(
            f"{path} holds {array.dtype} {array.shape}, expected {dtype} {shape}; delete it and train again"
        )
    return np.asarray(array)
