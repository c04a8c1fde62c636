from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.networks.models import build
from dualsmooth.training.networks.network import ModelSpec
from dualsmooth.training.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

SPEC = ModelSpec("small-cnn", 0.25, 3, (1, 8, 8), (0.5,), (0.5,))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "network.pt"
    save_checkpoint(path, Checkpoint(SPEC, build(SPEC).state_dict(), {}, 1, 2))
    return path


def test_a_checkpoint_comes_back_as_it_was(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    assert (checkpoint.spec, checkpoint.epoch, checkpoint.finished) == (SPEC, 1, False)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(checkpoint.network()(x), load_checkpoint(saved).network()(x))


def test_missing_and_damaged_checkpoints_are_refused(saved: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        load_checkpoint(saved.with_name("none.pt"))
    whole = saved.read_bytes()
    for damaged in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[1:]):
        saved.write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged") as caught:
            load_checkpoint(saved)
        assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(saved: Path) -> None:
    wider = ModelSpec("small-cnn", 0.5, 3, (1, 8, 8), (0.5,), (0.5,))
    save_checkpoint(saved, Checkpoint(SPEC, build(wider).state_dict(), {}, 1, 2))
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(saved)


class _Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": _Hostile()}, tmp_path / "hostile.pt")
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path / "hostile.pt")
    assert not (tmp_path / "executed").exists()
