"""Dual selective kernel blocks of each kind of residual network.

P. Sun et al. (ECCV workshops 2020), as Brigato et al. (arXiv 2212.12478) put them in other
networks: what was a 3x3 convolution is a selective kernel, of 8 groups in networks for small
images and 32 in ResNet-50, whose bottlenecks are twice as wide; strided shortcuts are blurred.
Deviations from the benchmark's code (GEM): that of WRN also blurs the first shortcut, which has no
stride; biases of the attention start at 0, there as torch's do.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cyclery.models._variants import GROUPS, GROUPS_SMALL
from cyclery.models.layers import Dropout, conv_1x1
from cyclery.models.layers.selective_kernel import DualBlock, Norms, SelectiveKernel, shortcut


def wide(
    inputs: int,
    outputs: int,
    stride: int,
    norm: Norms,
    activation: Callable[[], nn.Module],
    dropout: float,
) -> DualBlock:
    """Return a block of a wide residual network; the shortcut takes its raw input."""

    def branch() -> nn.Module:
        return nn.Sequential(
            norm(inputs),
            activation(),
            SelectiveKernel(inputs, outputs, stride, GROUPS_SMALL, norm),
            norm(outputs),
            activation(),
            Dropout(dropout),
            SelectiveKernel(outputs, outputs, 1, GROUPS_SMALL, norm),
        )

    path = shortcut(inputs, outputs, stride) if inputs != outputs else nn.Identity()
    return DualBlock(branch, path, nn.Identity())


def basic(inputs: int, outputs: int, stride: int, norm: Norms) -> DualBlock:
    """Return a block of two selective kernels with norms, and ReLU last."""

    def branch() -> nn.Module:
        return nn.Sequential(
            SelectiveKernel(inputs, outputs, stride, GROUPS_SMALL, norm),
            norm(outputs),
            nn.ReLU(),
            SelectiveKernel(outputs, outputs, 1, GROUPS_SMALL, norm),
            norm(outputs),
        )

    return DualBlock(branch, _projected(inputs, outputs, stride, norm), nn.ReLU())


def bottleneck(inputs: int, width: int, stride: int, norm: Norms) -> DualBlock:
    """Return a block of 1x1 convolution, selective kernel, 1x1 convolution, and ReLU last."""
    wider, outputs = 2 * width, 4 * width

    def branch() -> nn.Module:
        return nn.Sequential(
            conv_1x1(inputs, wider),
            norm(wider),
            nn.ReLU(),
            SelectiveKernel(wider, wider, stride, GROUPS, norm),
            conv_1x1(wider, outputs),
            norm(outputs),
        )

    return DualBlock(branch, _projected(inputs, outputs, stride, norm), nn.ReLU())


def _projected(inputs: int, outputs: int, stride: int, norm: Norms) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return shortcut(inputs, outputs, stride, norm(outputs))
