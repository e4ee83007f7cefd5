"""Selective kernels, blurred strides, and the draw between two branches.

- X. Li, W. Wang, X. Hu, J. Yang, Selective Kernel Networks (CVPR 2019, arXiv 1903.06586).
- R. Zhang, Making Convolutional Networks Shift-Invariant Again (ICML 2019, arXiv 1904.11486).
- P. Sun et al., A Visual Inductive Priors Framework for Data-Efficient Image Classification (ECCV
  workshops 2020): DSK-Net, in the form of Brigato et al. (arXiv 2212.12478).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.models.layers import Noise, conv_1x1, reflected

Norms = Callable[[int], nn.Module]


class BlurPool(nn.Module):
    """Every ``stride``-th pixel of maps blurred by (1, 2, 1) / 4 along both sides."""

    filter: Tensor

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        line = torch.tensor([0.25, 0.5, 0.25])
        filters = torch.outer(line, line).expand(channels, 1, 3, 3).clone()
        self.register_buffer("filter", filters, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] as [B, C, ceil(H / stride), ceil(W / stride)]."""
        x = reflected(reflected(x, -1, 1, 1), -2, 1, 1)
        return F.conv2d(x, self.filter, None, self.stride, groups=x.shape[1])


def blurred(channels: int, stride: int) -> list[nn.Module]:
    """Return a blurred stride, or nothing where the stride is 1."""
    return [BlurPool(channels, stride)] if stride > 1 else []


class SelectiveKernel(nn.Module):
    """Two grouped 3x3 convolutions, of dilation 1 and 2, weighed for each image and channel.

    The weights are a softmax of the two, by what the mean over the pixels of their sum says.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, norm: Norms) -> None:
        super().__init__()
        self.kernels = nn.ModuleList()
        for dilation in (1, 2):
            conv = nn.Conv2d(
                inputs, outputs, 3, 1, dilation, dilation=dilation, groups=groups, bias=False
            )
            last = (*blurred(outputs, stride), norm(outputs), nn.ReLU())
            self.kernels.append(nn.Sequential(conv, *last))
        hidden = max(outputs // 16, 32)
        self.squeeze = nn.Sequential(conv_1x1(outputs, hidden), norm(hidden), nn.ReLU())
        self.attention = nn.ModuleList(nn.Conv2d(hidden, outputs, 1) for _ in self.kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps [B, outputs, H / stride, W / stride]."""
        near, far = (kernel(x) for kernel in self.kernels)
        said = self.squeeze((near + far).mean((2, 3), keepdim=True))
        weight, other = torch.stack([each(said) for each in self.attention]).softmax(0).unbind()
        total: Tensor = near * weight + far * other
        return total


class DualBlock(Noise):
    """Two residual branches: training draws one for the batch, evaluation takes their mean.

    The branch that was not drawn is computed and multiplied by 0, so that one captured step serves
    every draw; the statistics of its batch norms move as well.

    Args:
        branch: makes one of them.
        shortcut: is added to what they give.
        last: comes after the sum.
    """

    def __init__(
        self, branch: Callable[[], nn.Module], shortcut: nn.Module, last: nn.Module
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branch() for _ in range(2))
        self.shortcut, self.last = shortcut, last

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps [B, outputs, H / stride, W / stride]."""
        first, second = (branch(x) for branch in self.branches)
        share = self.mask(x[0, 0, 0, 0], 0.5) if self.training else 0.5
        total: Tensor = self.last(first * share + second * (1 - share) + self.shortcut(x))
        return total


def shortcut(inputs: int, outputs: int, stride: int, *after: nn.Module) -> nn.Sequential:
    """Return 1x1 convolution, blurred stride where there is one, and what comes ``after``."""
    return nn.Sequential(conv_1x1(inputs, outputs), *blurred(outputs, stride), *after)
