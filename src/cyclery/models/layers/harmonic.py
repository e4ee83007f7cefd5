"""Harmonic convolutions: filters are learnt sums of the cosine transform's basis functions.

M. Ulicny, V. Krylov, R. Dahyot, Harmonic Convolutional Networks based on Discrete Cosine Transform
(Pattern Recognition 2022, arXiv 1812.03205 and 1905.00135), as Brigato et al. (arXiv 2212.12478)
use them: all k^2 frequencies of the DCT-II, each filter over its L1 norm. With weights w of the
frequencies (i, j), a filter is

    F(x, y) = sum_ij w_ij psi_ij(x, y) / |psi_ij|_1
    psi_ij(x, y) = cos(pi (x + 1/2) i / k) cos(pi (y + 1/2) j / k)
"""

from __future__ import annotations

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.models.layers import conv_like


def dct_filters(side: int) -> Tensor:
    """Return the filters [side^2, side, side] of the frequencies (i, j), each of L1 norm 1."""
    place = torch.arange(side, dtype=torch.float64)
    waves = torch.cos(pi / side * (place + 0.5) * place[:, None])
    waves = waves / waves.abs().sum(1, keepdim=True)
    return torch.einsum("ix,jy->ijxy", waves, waves).flatten(0, 1).float()


class HarmonicConv2d(nn.Conv2d):
    """A convolution whose weight [outputs, inputs, k, k] holds frequencies, not pixels."""

    filters: Tensor

    @classmethod
    def of(cls, conv: nn.Conv2d) -> HarmonicConv2d:
        """Return one of the shape of a plain convolution, with new initial weights, no bias."""
        found = conv_like(cls, conv, bias=False)
        nn.init.kaiming_normal_(found.weight, mode="fan_out", nonlinearity="relu")
        filters = dct_filters(conv.kernel_size[0]).flatten(1)
        found.register_buffer("filters", filters, persistent=False)
        return found

    def taps(self) -> Tensor:
        """Return the filters [outputs, inputs, k, k] that the weights make."""
        return (self.weight.flatten(2) @ self.filters).view(self.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of images or maps [B, C, H, W]."""
        return self._conv_forward(x, self.taps(), None)


class HarmonicFirst(nn.Module):
    """The first convolution, in two steps: all filters of each channel, batch norm, a sum of them.

    So each frequency of the image has variance 1 before it is weighed.
    """

    # It stands for one convolution, and is no block of a network (`_classifier.blocks`).
    one_layer = True
    filters: Tensor

    def __init__(self, conv: nn.Conv2d, like: nn.BatchNorm2d) -> None:
        super().__init__()
        self.stride, self.padding, self.inputs = conv.stride, conv.padding, conv.in_channels
        filters = dct_filters(conv.kernel_size[0])[:, None].repeat(self.inputs, 1, 1, 1)
        self.register_buffer("filters", filters, persistent=False)
        self.norm = nn.BatchNorm2d(len(filters), like.eps, like.momentum, affine=False)
        self.sum = nn.Conv2d(len(filters), conv.out_channels, 1, bias=False)
        nn.init.kaiming_normal_(self.sum.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of images [B, C, H, W]."""
        x = F.conv2d(x, self.filters, None, self.stride, self.padding, groups=self.inputs)
        maps: Tensor = self.sum(self.norm(x))
        return maps


def harmonise(net: nn.Module) -> None:
    """Put harmonic convolutions in the place of all plain ones of more than one pixel.

    The first is one of two steps, whose batch norm is as the network's others. Weights are new.
    """
    like = next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    found = [
        (path, module)
        for path, module in net.named_modules()
        if type(module) is nn.Conv2d and module.kernel_size[0] > 1
    ]
    for index, (path, conv) in enumerate(found):
        made = HarmonicConv2d.of(conv) if index else HarmonicFirst(conv, like)
        net.set_submodule(path, made)
