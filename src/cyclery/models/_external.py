"""Helpers of the networks that torchvision and timm define."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.models.layers import Dropout


def imported(package: str, network: str) -> Any:
    """Return the package, or raise a UserError that says how to get it."""
    try:
        return import_module(package)
    except ImportError as error:
        top = package.partition(".")[0]
        raise UserError(
            f"model {network!r} needs the package {top}, which cannot be imported ({error}). "
            f"Install it with: python -m pip install {top}"
        ) from error


class PoolTo(nn.AdaptiveAvgPool2d):
    """Adaptive mean pooling that leaves maps of the right size alone.

    So AlexNet on 224x224 images has no step whose backward pass is not deterministic on CUDA.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the maps [B, C, *output_size]."""
        return input if input.shape[-2:] == self.output_size else super().forward(input)


def with_own_dropout(model: nn.Module) -> nn.Module:
    """Return ``model`` with dropout of ours, which draws from a generator of the run."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                setattr(parent, name, Dropout(child.p))
    return model
