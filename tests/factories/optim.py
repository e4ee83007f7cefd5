"""A network with parameters of every kind, and hyper-parameters that change with every step."""

from __future__ import annotations

import torch
from torch import nn


def network() -> nn.Sequential:
    """Return a small network, the same at every call: convolutions, a norm, a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 7, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4),
    )  # fmt: skip


def changing(step: int, lr: float = 0.01) -> dict[str, float]:
    """Return hyper-parameters that change with every step; ``lr`` is the least learning rate."""
    return {
        "lr": lr * (1 + step % 5),
        "momentum": 0.95 - 0.01 * (step % 7),
        "weight_decay": 0.01 * (step % 3),
        "weight_decay_norm": 0.002 * (step % 2),
    }
