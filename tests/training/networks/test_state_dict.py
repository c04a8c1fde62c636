"""Checkpoints of other people, read without running what they name."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.networks.state_dict import is_checkpoint, read_state_dict

WEIGHTS = {"0.weight": torch.arange(6.0).view(2, 3), "0.bias": torch.tensor([1.0, -1.0])}


class Settings(dict[str, Any]):
    """As yacs, EasyDict and others make them."""


class Evil:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.folder}/done",)


def everything() -> dict[str, Any]:
    """What training scripts save beside the weights."""
    network = nn.Linear(3, 2)
    network(torch.ones(1, 3)).sum().backward()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    optimizer.step()
    return {
        "epoch": 90, "arch": "cifar_resnet110", "args": argparse.Namespace(lr=0.1, path=Path("x")),
        "best": np.float64(71.5), "history": np.arange(3), "config": Settings(a=1), "dtype": torch.float16,
        "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "acc": torch.tensor(93.0), "names": {"a"},
        "seen": collections.defaultdict(list, a=[1]), "call": print, "hyper": {"rng": {"cpu": torch.get_rng_state()}},
    }  # fmt: skip


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("key", ["", "state_dict", "net", "model", "model_state_dict", "whatever.inner"])
def test_weights_are_found_beside_anything(tmp_path: Path, key: str, new: bool) -> None:
    values: Any = dict(WEIGHTS)
    for part in reversed(key.split(".") if key else []):
        values = {part: values}
    content = {**everything(), **values} if key else values
    torch.save(content, tmp_path / "w.pth.tar", _use_new_zipfile_serialization=new)
    found = read_state_dict(tmp_path / "w.pth.tar")
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())
    assert is_checkpoint(tmp_path / "w.pth.tar")


def test_other_containers_of_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert read_state_dict(tmp_path / "w.safetensors").keys() == WEIGHTS.keys()
    assert is_checkpoint(tmp_path / "w.safetensors")
    network = nn.Sequential(nn.Linear(3, 2))
    torch.save({"model": dict(network.named_parameters()), "optimizer": {}}, tmp_path / "parameters.pt")
    assert read_state_dict(tmp_path / "parameters.pt").keys() == WEIGHTS.keys()
    half = {name: value.half() for name, value in WEIGHTS.items()}
    torch.save(collections.OrderedDict(half), tmp_path / "half.pt")
    assert read_state_dict(tmp_path / "half.pt")["0.bias"].dtype == torch.float16
    torch.save({**WEIGHTS, "epoch": 3}, tmp_path / "mixed.pt")
    assert read_state_dict(tmp_path / "mixed.pt").keys() == WEIGHTS.keys()


@pytest.mark.parametrize("new", [True, False])
def test_nothing_that_a_file_names_is_run(tmp_path: Path, new: bool) -> None:
    torch.save({"state_dict": WEIGHTS, "args": Evil(tmp_path)}, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
    assert read_state_dict(tmp_path / "w.pt").keys() == WEIGHTS.keys()
    torch.save({"0.weight": Evil(tmp_path), "more": [Evil(tmp_path)]}, tmp_path / "v.pt")
    with pytest.raises(InputError, match="no state dict"):
        read_state_dict(tmp_path / "v.pt")
    assert not (tmp_path / "done").exists()


def test_weights_in_several_places_have_to_be_chosen(tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in WEIGHTS.items()}
    torch.save({"state_dict": WEIGHTS, "state_dict_ema": other}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"under state_dict, state_dict_ema; say which"):
        read_state_dict(tmp_path / "w.pth")
    assert torch.equal(read_state_dict(tmp_path / "w.pth", "state_dict_ema")["0.bias"], other["0.bias"])
    with pytest.raises(InputError, match=r"no weights under 'ema'; expected one of state_dict, state_dict_ema"):
        read_state_dict(tmp_path / "w.pth", "ema")


def save(path: Path, value: Any) -> None:
    if isinstance(value, bytes):
        path.write_bytes(value)
    elif isinstance(value, torch.jit.ScriptModule):
        torch.jit.save(value, str(path))  # type: ignore[no-untyped-call]
    else:
        torch.save(value, path)


REFUSED = {
    "whole module": (nn.Sequential(nn.Linear(3, 2)), "a pickled torch.nn.modules.container.Sequential"),
    "module under a key": ({"net": nn.Linear(3, 2), "acc": 9}, "a pickled torch.nn.modules.linear.Linear under 'net'"),
    "list": ([1, 2], "a list"),
    "nothing": ({}, "empty dictionary"),
    "numbers": ({"epoch": 3, "acc": 0.5}, "the keys epoch, acc"),
    "plain pickle": (pickle.dumps({"a": 1}), "cannot read"),
    "garbage": (b"no checkpoint at all", "cannot read"),
    "truncated": (b"PK\x03\x04 and no more", "cannot read"),
    "empty": (b"", "cannot read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_holds_no_weights_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, message = REFUSED[case]
    save(tmp_path / "w.pth", content)
    with pytest.raises(InputError) as caught:
        read_state_dict(tmp_path / "w.pth")
    assert message in str(caught.value)
    assert "w.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_archives_are_named(tmp_path: Path) -> None:
    save(tmp_path / "w.pt", torch.jit.script(nn.Linear(3, 2)))
    with pytest.raises(InputError, match="TorchScript archive"):
        read_state_dict(tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"gone\.pt"):
        read_state_dict(tmp_path / "gone.pt")
