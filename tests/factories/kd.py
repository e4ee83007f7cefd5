"""Distillation of a batch: its sizes, and every path of its step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

B, MU, K = 6, 2, 5
N = MU * B

# Every path through the step.
PATHS: dict[str, dict[str, Any]] = {
    "benchmark": {},
    "own weight of the labels": {"hard": 0.3},
    "no labels": {"hard": 0.0},
    "cross-entropy, as TAKD divides": {"form": "cross_entropy", "reduction": "mean"},
    "without T^2": {"squared": False},
    "permuted": {"targets": "permuted"},
    "permuted, no labels": {"targets": "permuted", "hard": 0.0},
    "unlabelled": {"inputs": "unlabelled"},
    "unlabelled alone": {"inputs": "unlabelled", "hard": 0.0},
    "both": {"inputs": "both"},
    "both, no labels": {"inputs": "both", "hard": 0.0},
    "mixup": {"mixup": 1.0, "hard": 0.0},
    "mixup of both": {"mixup": 0.4, "hard": 0.0, "inputs": "both"},
    "mixup of the unlabelled": {"mixup": 1.0, "hard": 0.0, "inputs": "unlabelled"},
}
each_path = pytest.mark.parametrize("given", PATHS.values(), ids=PATHS)


def double(value: float) -> Tensor:
    """Return a number as a float64 tensor."""
    return torch.tensor(value, dtype=torch.float64)


def watch(net: nn.Module) -> list[Tensor]:
    """Note what a network is called with."""
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen
