"""A small convolutional network, for small images and slow machines."""

from __future__ import annotations

from torch import nn

from dualsmooth.training.networks.network import Kind, ModelSpec


def _trunk(spec: ModelSpec) -> tuple[nn.Module, int]:
    """Five convolutions, 0.3 M parameters at width 1: 5x5/2 32, 3x3/2 64, 3x3 64, 3x3/2 128, 3x3 128.

    Depth multiplies the two that keep their size.
    """
    more = max(1, round(spec.depth))
    plan = [(5, 2, 32), (3, 2, 64), *[(3, 1, 64)] * more, (3, 2, 128), *[(3, 1, 128)] * more]
    layers: list[nn.Module] = []
    channels = spec.input_shape[0]
    for size, stride, features in plan:
        features = max(1, round(features * spec.width))
        layers += [
            nn.Conv2d(channels, features, size, stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(inplace=True),
        ]
        channels = features
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels


SMALL_CNN = Kind("small-cnn", "small-cnn", lambda name: name == "small-cnn", _trunk)
