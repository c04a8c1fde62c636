"""What changes the weights: AdamW, or Muon for the matrices inside a network.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; torch's own implementation) makes each step's
matrix orthogonal, so that all directions of a layer learn at one pace: fewer epochs for the same loss.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from dualsmooth.training.config.sections import MUON


class Optimizer(Protocol):
    """The part of torch's optimisers that a training uses."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...
    def zero_grad(self) -> None: ...
    def step(self) -> object: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def optimizer_of(name: str, network: nn.Module, lr: float, weight_decay: float) -> Optimizer:
    """The optimiser `name` for all weights of `network`, which are on their device and stay there."""
    if name == MUON:
        return _Muon(network, lr, weight_decay)
    return torch.optim.AdamW(network.parameters(), lr, weight_decay=weight_decay, fused=True)


class _Muon:
    """Muon for the convolutions and linear layers between the first and the last one, AdamW for all else. Steps are
    scaled to the size of AdamW's, so that one learning rate serves both (Liu et al. 2025, arXiv 2502.16982)."""

    def __init__(self, network: nn.Module, lr: float, weight_decay: float) -> None:
        inner = [weight for weight in network.parameters() if weight.ndim > 1][1:-1]
        self._matrices = [(weight, _as_matrix(weight.detach(), weight)) for weight in inner]
        self._muon = torch.optim.Muon(
            [matrix for _, matrix in self._matrices], lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        apart = {id(weight) for weight in inner}
        rest = [weight for weight in network.parameters() if id(weight) not in apart]
        self._rest = torch.optim.AdamW(rest, lr, weight_decay=weight_decay, fused=True)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [*self._muon.param_groups, *self._rest.param_groups]

    def zero_grad(self) -> None:
        self._rest.zero_grad()
        for weight, _ in self._matrices:
            weight.grad = None

    def step(self) -> None:
        for weight, matrix in self._matrices:
            matrix.grad = None if weight.grad is None else _as_matrix(weight.grad, weight)
        self._muon.step()  # type: ignore[no-untyped-call]
        self._rest.step()

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self._muon.state_dict(), "rest": self._rest.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._muon.load_state_dict(state_dict["muon"])
        self._rest.load_state_dict(state_dict["rest"])


def _as_matrix(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A weight [O,...] or its gradient as [O,rest], in the order in which `weight` lies in memory: then the matrix of
    the weight is a view of it. What Muon makes of a matrix does not depend on the order of its columns."""
    last = weight.ndim == 4 and not weight.is_contiguous()
    return (values.permute(0, 2, 3, 1) if last else values).reshape(len(weight), -1)
