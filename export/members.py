"""Networks as the user gives them, and the files of a bundle that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from dualsmooth.runtime.bundle.reading import BaseModel
from dualsmooth.runtime.errors import InputError

Member = nn.Module | str | Path
"""One network: a PyTorch module, or the path of an ONNX file."""


@dataclass(frozen=True)
class Ensemble:
    """Networks whose logits are averaged; with `consensus` K, the first K decide alone where they agree."""

    members: tuple[Member, ...]
    consensus: int = 0


Source = Member | Ensemble
"""A base model."""


@dataclass(frozen=True)
class MemberFile:
    """The file `name` that a network becomes: its role, how many logits it gives, and the noise levels it will see."""

    name: str
    role: str
    network: Member
    outputs: int
    levels: list[float] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What messages call it: the user's file where it is one."""
        return self.name if isinstance(self.network, nn.Module) else str(self.network)


def member_files(
    role: str, sources: Sequence[Source], levels: Sequence[float], outputs: int
) -> tuple[list[BaseModel], list[MemberFile]]:
    """The base models of one stage, one a level, and the files of their members, each network once.

    `outputs` is how many logits they give. Raises `InputError` for what is no network.
    """
    ensembles = [source if isinstance(source, Ensemble) else Ensemble((source,)) for source in sources]
    shared = len({tuple(map(_identity, e.members)) for e in ensembles}) == 1
    files: dict[Any, MemberFile] = {}
    models = []
    for ensemble, level in zip(ensembles, levels, strict=True):
        if not 0 <= ensemble.consensus <= len(ensemble.members) or not ensemble.members:
            raise InputError(f"consensus is {ensemble.consensus}; expected 0 to {len(ensemble.members)}, the members")
        members = []
        for i, network in enumerate(ensemble.members):
            stem = role if shared else f"{role}_{level:g}"
            name = f"{stem}_{i}.onnx" if len(ensemble.members) > 1 else f"{stem}.onnx"
            file = files.setdefault(_identity(network), MemberFile(name, role, network, outputs))
            if level not in file.levels:
                file.levels.append(level)
            members.append(file.name)
        models.append(BaseModel(tuple(members), ensemble.consensus))
    return models, list(files.values())


def _identity(network: Member) -> Any:
    """What two mentions of one network have in common."""
    if isinstance(network, nn.Module):
        return id(network)
    if isinstance(network, str | Path):
        return str(Path(network).resolve())
    fix = "; fill its module with it, e.g. with dualsmooth.export.load_checkpoint" if isinstance(network, dict) else ""
    raise InputError(
        f"a network is a {type(network).__name__}; expected an nn.Module, an ONNX file's path, or Ensemble{fix}"
    )
