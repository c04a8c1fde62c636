from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from scipy import stats

from dualsmooth.runtime.errors import EngineError, InputError
from dualsmooth.training import Config
from dualsmooth.training.data import TrainingData, load_training_data
from dualsmooth.training.networks.models import build, initialise
from dualsmooth.training.networks.network import ModelSpec, Network
from dualsmooth.training.seeds import Randomness, numpy_generator
from dualsmooth.training.stages.labels import (
    LabelVotes,
    Voter,
    cohen_radii,
    contenders,
    label_indices,
    label_radii,
    label_votes,
    route_votes,
    voter_of,
)


@pytest.fixture(scope="module")
def data(tiny: Config) -> TrainingData:
    return load_training_data(tiny)


@pytest.fixture(scope="module")
def network() -> Network:
    network = build(ModelSpec("small-cnn", 0.25, 3, (1, 8, 8), (0.3,), (0.3,)))
    initialise(network, torch.Generator().manual_seed(3))
    return network.eval()


@pytest.fixture(scope="module")
def voter(network: Network) -> Voter:
    return voter_of(network, (1, 8, 8))


def every_vote(config: Config) -> Config:
    return dataclasses.replace(config, labels=dataclasses.replace(config.labels, doubt=0.0))


def labelled(config: Config, data: TrainingData, voter: Voter, folder: Path, threads: int = 2) -> LabelVotes:
    index = label_indices(len(data.images), config)
    return label_votes(folder, data, index, [voter, voter], config, threads=threads)


def test_label_votes_equal_a_recount_with_torch(
    tiny: Config, data: TrainingData, network: Network, voter: Voter, tmp_path: Path
) -> None:
    drawn = labelled(every_vote(tiny), data, voter, tmp_path / "labels")
    index = label_indices(len(data.images), tiny)
    assert drawn.hits.shape == (50, 2)
    assert (drawn.passes == tiny.labels.votes).all()
    size, disagreements = tiny.labels.shard, 0
    for shard in range(3):
        generator = numpy_generator(tiny.seed, Randomness.LABELS, shard)
        rows = range(shard * size, min(50, (shard + 1) * size))
        for level, sigma in enumerate(tiny.sigmas):
            for row in rows:
                noise = generator.standard_normal((20, 1, 8, 8), np.float32)
                x = torch.from_numpy(data.images[index[row]] / np.float32(255) + np.float32(sigma) * noise)
                label = int(data.labels[index[row]])
                with torch.no_grad():
                    logits = network(x)
                disagreements += abs(int((logits.argmax(1) == label).sum()) - int(drawn.hits[row, level]))
                margins = (
                    logits[:, label] - torch.cat([logits[:, :label], logits[:, label + 1 :]], 1).amax(1)
                ).double()
                assert drawn.margins[row, level] == pytest.approx(float(margins.sum()), abs=1e-3)
                assert drawn.squares[row, level] == pytest.approx(float((margins**2).sum()), rel=1e-3, abs=1e-3)
    assert disagreements <= 1  # logits that tie to the last bit may fall either way


def test_votes_do_not_depend_on_threads_or_interruptions(
    tiny: Config, data: TrainingData, voter: Voter, tmp_path: Path
) -> None:
    whole = labelled(tiny, data, voter, tmp_path / "a")
    (tmp_path / "a" / "00001.npy").unlink()
    before = (tmp_path / "a" / "00000.npy").stat().st_mtime_ns
    np.testing.assert_array_equal(labelled(tiny, data, voter, tmp_path / "a", threads=1), whole)
    assert (tmp_path / "a" / "00000.npy").stat().st_mtime_ns == before


def test_a_damaged_shard_is_refused(tiny: Config, data: TrainingData, voter: Voter, tmp_path: Path) -> None:
    labelled(tiny, data, voter, tmp_path / "a")
    for content in (b"", b"garbage", (tmp_path / "a" / "00002.npy").read_bytes()):
        (tmp_path / "a" / "00001.npy").write_bytes(content)
        with pytest.raises(InputError, match="delete it"):
            labelled(tiny, data, voter, tmp_path / "a")


def test_votes_of_many_images_are_those_of_each(data: TrainingData, voter: Voter) -> None:
    """Packing images into batches changes neither the noise that each sees nor whose vote is whose."""
    packed = voter.votes_of_many(data.images[:30], 0.5, 40, np.random.default_rng(1))
    generator = np.random.default_rng(1)
    singly = np.array([voter.votes(image, 0.5, 40, generator) for image in data.images[:30]])
    assert np.abs(packed - singly).sum() <= 2
    assert (packed.sum(axis=1) == 40).all()


def test_a_race_ends_early_where_the_best_level_is_plain(tiny: Config) -> None:
    settings = dataclasses.replace(tiny.labels, votes=100, doubt=0.1)
    hits = np.array([[8, 0], [0, 0], [8, 8], [32, 32], [4, 5]])
    passes = np.array([[8, 8], [8, 8], [8, 8], [32, 32], [8, 8]])
    racing = contenders(hits, passes, settings, (0.5, 1.0))
    # the lower level wins; neither can certify; 8 votes cannot tell; twice the level and all votes; too few votes
    assert racing.tolist() == [[False] * 2, [False] * 2, [True] * 2, [False] * 2, [True] * 2]


def test_a_race_finds_the_level_that_all_votes_would_find(tiny: Config) -> None:
    """Simulated hits of known probability: wrong winners by a clear margin are as rare as `doubt` allows."""
    settings = dataclasses.replace(tiny.labels, votes=100, doubt=0.1)
    generator = np.random.default_rng(5)
    p = np.tile([0.95, 0.75], (2_000, 1))  # radii 0.25 * 1.06 against 0.5 * 0.18 with 100 votes at alpha 0.001
    hits, passes = np.zeros((2_000, 2), np.int64), np.zeros((2_000, 2), np.int64)
    racing = np.ones((2_000, 2), bool)
    for look in (8, 16, 32, 64, 100):
        more = np.where(racing, look - passes, 0)
        hits, passes = hits + generator.binomial(more, p), passes + more
        racing &= contenders(hits, passes, settings, (0.25, 0.5))
    nothing = np.zeros_like(p)
    radii = label_radii(LabelVotes(hits, passes, nothing, nothing), settings, (0.25, 0.5))
    assert (radii.argmax(axis=1) == 0).mean() > 0.85
    assert passes.mean() < 90


def test_route_votes_count_every_pass(tiny: Config, data: TrainingData, voter: Voter, tmp_path: Path) -> None:
    three = dataclasses.replace(tiny, sigmas=(0.1, 0.25, 0.5))
    votes = route_votes(tmp_path / "routes", data, voter, three)
    assert votes.shape == (160, 3)
    assert (votes.sum(axis=1) == tiny.finetune.votes).all()


def test_votes_count_every_pass(voter: Voter) -> None:
    counts = voter.votes(np.zeros((1, 8, 8), np.uint8), 0.5, 700, np.random.default_rng(0))
    assert counts.shape == (3,)
    assert counts.sum() == 700


def test_a_failed_pass_is_not_a_vote() -> None:
    """The logarithm of a noisy pixel is NaN where the pixel is negative."""
    shape = [None, 3, 1, 1]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Log", ["x"], ["logits"])],
        "main",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(EngineError, match="not finite"):
        Voter(model.SerializeToString()).votes(np.zeros((3, 1, 1), np.uint8), 0.5, 10, np.random.default_rng(0))


def test_radii_are_those_of_cohen() -> None:
    successes = np.array([[100, 50], [90, 0]])
    radii = cohen_radii(successes, 100, (0.25, 0.5), 0.001)
    assert radii[0, 0] == pytest.approx(0.25 * stats.norm.ppf(0.001**0.01))
    lower = stats.beta.ppf(0.001, 90, 11)
    assert radii[1, 0] == pytest.approx(0.25 * stats.norm.ppf(lower))
    assert radii[0, 1] == radii[1, 1] == 0.0


def test_radii_from_margins_are_those_of_gaussian_votes(tiny: Config) -> None:
    """Where margins are N(m, s^2), a vote is right with probability Phi(m / s): the radius is sigma * m / s."""
    settings = dataclasses.replace(tiny.labels, votes=64, radii="margins")
    ratios = np.array([[-0.5, 0.0], [0.5, 1.0], [2.0, 2.9], [5.0, 9.0]])
    margins = 3 * (ratios + np.random.default_rng(2).normal(size=(4_000, *ratios.shape)))
    votes = [(margins > 0).sum(0), np.full(ratios.shape, 4_000), margins.sum(0), (margins**2).sum(0)]
    radii = label_radii(LabelVotes(*votes), settings, (0.25, 0.5))
    most = stats.norm.ppf(5e-4**1e-4)  # what 10,000 votes certify at half of alpha = 0.001
    expected = np.clip(ratios, 0.0, most) * (0.25, 0.5)
    np.testing.assert_allclose(radii, expected, atol=0.05)
    assert radii[3].tolist() == pytest.approx([0.25 * most, 0.5 * most])


def test_labelled_images_are_a_sample_by_seed(tiny: Config) -> None:
    index = label_indices(160, tiny)
    assert len(set(index.tolist())) == 50
    everything = dataclasses.replace(tiny, labels=dataclasses.replace(tiny.labels, images=0))
    assert sorted(label_indices(160, everything).tolist()) == list(range(160))
    np.testing.assert_array_equal(label_indices(160, everything)[:50], index)
    with pytest.raises(InputError, match=r"labels\.images is 50"):
        label_indices(40, tiny)
