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
from dualsmooth.training.labels import Voter, certified_radii, label_indices, label_votes, voter_of
from dualsmooth.training.models import ModelSpec, Network, build, initialise
from dualsmooth.training.seeds import Stream, numpy_generator


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


def test_label_votes_equal_a_recount_with_torch(
    tiny: Config, data: TrainingData, network: Network, voter: Voter, tmp_path: Path
) -> None:
    votes = label_votes(tmp_path / "labels", data, voter, tiny)
    index = label_indices(len(data.images), tiny)
    assert votes.shape == (50, 2)
    size, disagreements = tiny.labels.shard, 0
    for shard in range(3):
        generator = numpy_generator(tiny.seed, Stream.LABELS, shard)
        for row in range(shard * size, min(50, (shard + 1) * size)):
            for level, sigma in enumerate(tiny.sigmas):
                noise = generator.standard_normal((20, 1, 8, 8), np.float32)
                x = torch.from_numpy(data.images[index[row]] / np.float32(255) + np.float32(sigma) * noise)
                with torch.no_grad():
                    recount = int((network(x).argmax(1) == int(data.labels[index[row]])).sum())
                disagreements += abs(recount - int(votes[row, level]))
    assert disagreements <= 1  # logits that tie to the last bit may fall either way


def test_votes_do_not_depend_on_threads_or_interruptions(
    tiny: Config, data: TrainingData, voter: Voter, tmp_path: Path
) -> None:
    whole = label_votes(tmp_path / "a", data, voter, tiny, threads=2)
    (tmp_path / "a" / "00001.npy").unlink()
    before = (tmp_path / "a" / "00000.npy").stat().st_mtime_ns
    np.testing.assert_array_equal(label_votes(tmp_path / "a", data, voter, tiny, threads=1), whole)
    assert (tmp_path / "a" / "00000.npy").stat().st_mtime_ns == before


def test_a_damaged_shard_is_refused(tiny: Config, data: TrainingData, voter: Voter, tmp_path: Path) -> None:
    label_votes(tmp_path / "a", data, voter, tiny)
    for content in (b"", b"garbage", (tmp_path / "a" / "00002.npy").read_bytes()):
        (tmp_path / "a" / "00001.npy").write_bytes(content)
        with pytest.raises(InputError, match="delete it"):
            label_votes(tmp_path / "a", data, voter, tiny)


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
    radii = certified_radii(successes, 100, (0.25, 0.5), 0.001)
    assert radii[0, 0] == pytest.approx(0.25 * stats.norm.ppf(0.001**0.01))
    lower = stats.beta.ppf(0.001, 90, 11)
    assert radii[1, 0] == pytest.approx(0.25 * stats.norm.ppf(lower))
    assert radii[0, 1] == radii[1, 1] == 0.0


def test_labelled_images_are_a_sample_by_seed(tiny: Config) -> None:
    index = label_indices(160, tiny)
    assert len(set(index.tolist())) == 50
    everything = dataclasses.replace(tiny, labels=dataclasses.replace(tiny.labels, images=0))
    assert sorted(label_indices(160, everything).tolist()) == list(range(160))
    np.testing.assert_array_equal(label_indices(160, everything)[:50], index)
    with pytest.raises(InputError, match=r"labels\.images is 50"):
        label_indices(40, tiny)
