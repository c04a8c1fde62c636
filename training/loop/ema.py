"""Exponential moving average of a network's weights (Polyak averaging), kept beside the weights that are trained."""

from __future__ import annotations

import torch
from torch import nn


class Average:
    """`values`, the averaged state of `network`: parameters and batch statistics alike.

    The decay rises from 0.1 to `decay` over the first steps, (1 + step) / (10 + step), so that the random first
    weights are soon forgotten. `values` of a checkpoint go on where it was made.
    """

    def __init__(self, network: nn.Module, decay: float, values: dict[str, torch.Tensor] | None = None) -> None:
        self._decay = decay
        current = network.state_dict()
        if values is None:
            values = current
        self.values = {key: values[key].detach().clone().to(current[key].device) for key in current}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the weights after `step` (from 0); counters are copied."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value, 1 - decay)
            else:
                self.values[key].copy_(value)
