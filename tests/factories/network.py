"""Networks of a size that a CPU trains at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cyclery.common.errors import UserError
from cyclery.models import Shape, build, settings_type

DIGITS, FASHION, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
# Settings of those whose defaults are larger than a test has time for.
SMALL: dict[str, dict[str, Any]] = {
    "bn_mlp": {"hidden": [16, 8]},
    "mlp": {"hidden": [16, 8]},
    "small_cnn": {"width": 4},
    "plain_cnn": {"size": 2, "width": 0.25},
    "vgg": {"depth": 8, "width": 0.0625},
    "resnet": {"depth": 8},
    "resnet_b": {"depth": 8, "widths": [4, 4, 8, 16]},
    "resnet18": {},
    "resnet50": {"width": 0.125},
    "preact_resnet18": {"width": 4},
    "preresnet": {"depth": 8, "width": 4},
    "wrn": {"depth": 10, "width": 1},
    "stochastic_depth": {"depth": 14, "p_last": 0.5},
    "densenet": {"depth": 10, "growth": 4},
}


def shape_of(name: str) -> Shape:
    """Return a shape of small images that a network takes."""
    kind = settings_type(name)
    side = max(8, kind(**SMALL.get(name, {})).min_side())
    return (kind.CHANNELS or 1, side, side)


def small(
    name: str,
    shape: Shape | None = None,
    classes: int = 10,
    seed: int = 0,
    head: dict[str, Any] | None = None,
    **settings: Any,
) -> nn.Module:
    """Return a new small network; the test is skipped where its package is not installed."""
    torch.manual_seed(seed)
    given = {**SMALL.get(name, {}), **settings}
    try:
        return build(name, given, shape or shape_of(name), classes, head)
    except UserError as error:
        if "cannot be imported" in str(error):
            pytest.skip(str(error))
        raise


def parameters(name: str, settings: dict, shape: Shape = CIFAR, classes: int = 10) -> int:
    """Return how many parameters a network has, without making them."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(name, settings, shape, classes).parameters())
