"""Checkpoints as the field names them, in the networks that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dualsmooth.runtime.errors import InputError
from dualsmooth.training.networks.architectures import architecture
from dualsmooth.training.networks.published import load_checkpoint

SHAPE = (3, 16, 16)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Block(nn.Module):
    """A block of CIFAR's residual networks, with the names of most code."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return torch.relu(inner + (x if self.downsample is None else self.downsample(x)))


class CifarResNet(nn.Module):
    """6n + 2 layers, as Cohen et al. use them."""

    def __init__(self, blocks: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        width = 16
        for stage in range(3):
            layers: list[nn.Module] = []
            for number in range(blocks):
                layers.append(Block(width, 16 << stage, 2 if stage and not number else 1))
                width = 16 << stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits


class NormalizeLayer(nn.Module):
    """Its values are plain attributes, and are in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.means, self.sds = torch.tensor(MEAN), torch.tensor(STD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.means.view(1, 3, 1, 1)) / self.sds.view(1, 3, 1, 1)


class BufferedNormalize(NormalizeLayer):
    def __init__(self) -> None:
        super().__init__()
        del self.means, self.sds
        self.register_buffer("means", torch.tensor(MEAN))
        self.register_buffer("sds", torch.tensor(STD))


def warmed(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics that no two networks share."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not name.endswith(("means", "sds", "mean", "std")):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.05 * (value.ndim == 1))
    return network.eval()


def agree(loaded: nn.Module, original: nn.Module) -> None:
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(x), original(x), rtol=1e-4, atol=1e-4)


Save = Callable[[dict[str, Any]], Any]
PREFIXES = ["", "module.", "model.", "_orig_mod.", "backbone.", "module.model.", "_orig_mod.module.", "net.encoder."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_in_front_of_the_names(tmp_path: Path, prefix: str) -> None:
    original = warmed(CifarResNet(2))
    values = {prefix + name: value for name, value in original.state_dict().items()}
    torch.save({"state_dict": values, "epoch": 90}, tmp_path / "w.pth")
    agree(load_checkpoint(tmp_path / "w.pth", architecture("resnet14", 10, SHAPE)), original)
    agree(load_checkpoint(tmp_path / "w.pth", CifarResNet(2)), original)


@pytest.mark.parametrize("make", [
    lambda net: nn.Sequential(NormalizeLayer(), net),
    lambda net: nn.Sequential(NormalizeLayer(), nn.DataParallel(net)),
    lambda net: nn.DataParallel(nn.Sequential(NormalizeLayer(), net)),
])  # fmt: skip
def test_cohens_checkpoints_need_the_statistics_that_they_lack(tmp_path: Path, make: Any) -> None:
    original = warmed(make(CifarResNet()))
    torch.save({"arch": "cifar_resnet8", "state_dict": original.state_dict()}, tmp_path / "checkpoint.pth.tar")
    with pytest.raises(InputError, match=r"first layer without weights.*0\.4914,0\.4822,0\.4465"):
        load_checkpoint(tmp_path / "checkpoint.pth.tar", architecture("cifar_resnet8", 10, SHAPE))
    filled = load_checkpoint(
        tmp_path / "checkpoint.pth.tar", architecture("resnet8", 10, SHAPE), mean=MEAN, std=STD
    )  # fmt: skip
    agree(filled, original)
    agree(load_checkpoint(tmp_path / "checkpoint.pth.tar", nn.Sequential(NormalizeLayer(), CifarResNet())), original)
    wrapped = nn.DataParallel(nn.Sequential(NormalizeLayer(), CifarResNet()))
    agree(load_checkpoint(tmp_path / "checkpoint.pth.tar", wrapped), original)
    agree(load_checkpoint(tmp_path / "checkpoint.pth.tar", nn.Sequential(BufferedNormalize(), CifarResNet())), original)


def test_statistics_in_the_file_are_taken_over(tmp_path: Path) -> None:
    original = warmed(nn.DataParallel(nn.Sequential(BufferedNormalize(), CifarResNet())))
    torch.save({"net": original.state_dict()}, tmp_path / "w.pth")
    agree(load_checkpoint(tmp_path / "w.pth", CifarResNet()), original)
    with pytest.raises(InputError, match="of its own; leave yours out"):
        load_checkpoint(tmp_path / "w.pth", CifarResNet(), mean=MEAN, std=STD)
    inner = CifarResNet()  # MadryLab's robustness library: the attacker holds everything once more
    values = {f"module.model.{k}": v for k, v in warmed(inner).state_dict().items()}
    values |= {"module.normalizer.new_mean": torch.tensor(MEAN).view(3, 1, 1)}
    values |= {"module.normalizer.new_std": torch.tensor(STD).view(3, 1, 1)}
    values |= {k.replace("module.", "module.attacker."): v for k, v in values.items()}
    torch.save({"model": values, "optimizer": {"state": {}}}, tmp_path / "robust.pt")
    agree(load_checkpoint(tmp_path / "robust.pt", CifarResNet()), nn.Sequential(NormalizeLayer(), inner))


def test_what_may_differ(tmp_path: Path) -> None:
    original = warmed(CifarResNet())
    values = {k: v for k, v in original.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(values, tmp_path / "old.pth")
    agree(load_checkpoint(tmp_path / "old.pth", CifarResNet()), original)
    averaged = torch.optim.swa_utils.AveragedModel(original)
    torch.save(averaged.state_dict(), tmp_path / "swa.pth")
    agree(load_checkpoint(tmp_path / "swa.pth", CifarResNet()), original)
    half = warmed(CifarResNet()).half()
    torch.save(half.state_dict(), tmp_path / "half.pth")
    filled = load_checkpoint(tmp_path / "half.pth", CifarResNet())
    assert next(filled.parameters()).dtype == torch.float32
    agree(filled, half.float())
    assert load_checkpoint(tmp_path / "old.pth", original) is original


def renamed(old: str, new: str) -> dict[str, Any]:
    return {k.replace(old, new): v for k, v in CifarResNet().state_dict().items()}


REFUSED = {
    "another head": (CifarResNet(1, 100).state_dict(), r"fc.weight is [100, 64] in the file and [10, 64] in the"),
    "deeper": (CifarResNet(2).state_dict(), "the network lacks layer1.1.conv1.weight"),
    "another naming": (renamed("fc.", "linear."), "the file lacks fc.weight, fc.bias; the network lacks linear.weight"),
    "something else": ({"a.weight": torch.zeros(2, 2)}, "(0 of"),
    "two networks": (
        {**CifarResNet().state_dict(), **{f"ema.{k}": v for k, v in warmed(CifarResNet()).state_dict().items()}},
        "the network lacks ema.conv1.weight",
    ),
    "only a mean": ({**CifarResNet().state_dict(), "mean": torch.zeros(3)}, "the network lacks mean"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_naming_what_differs(tmp_path: Path, case: str) -> None:
    values, message = REFUSED[case]
    torch.save(values, tmp_path / "w.pth")
    network = warmed(CifarResNet())
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path / "w.pth", network)
    assert message in str(caught.value)
    assert "w.pth" in str(caught.value)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_a_resnet_of_another_family_is_no_cifar_resnet(tmp_path: Path) -> None:
    """Shortcuts without weights (option A) have as many layers, and compute something else."""
    values = {k: v for k, v in CifarResNet().state_dict().items() if "downsample" not in k}
    torch.save(values, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"the file lacks layer2\.0\.downsample\.0\.weight"):
        load_checkpoint(tmp_path / "w.pth", architecture("resnet8", 10, SHAPE))


def library_networks() -> list[tuple[str, Callable[[], nn.Module]]]:
    import timm
    import torchvision

    return [
        ("torchvision:resnet18", lambda: torchvision.models.resnet18(num_classes=5)),
        ("timm:resnet10t", lambda: timm.create_model("resnet10t", num_classes=5)),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_networks_of_libraries(tmp_path: Path, number: int) -> None:
    name, make = library_networks()[number]
    original = warmed(make())
    torch.save({"state_dict_ema": original.state_dict()}, tmp_path / "w.pth")
    agree(load_checkpoint(tmp_path / "w.pth", architecture(name, 5, SHAPE)), original)


@pytest.mark.parametrize(("name", "message"), [
    ("resnet51", "is unknown; expected resnet20, resnet110"), ("torchvision:resnet5000", "is unknown to torchvision"),
    ("vgg", "is unknown"), ("torchvision:vit_b_16", "cannot serve images"),
])  # fmt: skip
def test_unknown_architectures_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        architecture(name, 10, (3, 7, 9))
