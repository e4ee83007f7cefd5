"""Weight standardisation: what makes group norm as good as batch norm, without batch statistics.

S. Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight Standardization
(arXiv 1903.10520), with the learnt gain of De et al. (arXiv 2204.13650) and Richemond et al. (arXiv
2010.10241). The weights w of one output, n of them, enter as

    gain (w - mean(w)) / sqrt(max(n var(w), 1e-4))

so that their squares sum to gain^2 whatever the scale of w.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.models.layers import conv_like

LEAST = 1e-4


def standardised(weight: Tensor, gain: Tensor) -> Tensor:
    """Return weights [outputs, ...]: mean 0 and squared norm gain^2 [outputs] in each output."""
    inner = tuple(range(1, weight.ndim))
    centred = weight - weight.mean(inner, keepdim=True)
    squares = centred.square().sum(inner, keepdim=True)
    scale = squares.clamp_min(LEAST).rsqrt() * gain.view(-1, *[1] * len(inner))
    return centred * scale


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose weights are standardised, with a gain for each output channel."""

    gain: Tensor

    @classmethod
    def of(cls, conv: nn.Conv2d) -> StandardisedConv2d:
        """Return one like a plain convolution, with the very weights and bias of it."""
        assert isinstance(conv.padding, tuple)
        with torch.device("meta"):
            found = conv_like(cls, conv, conv.bias is not None)
        found.weight, found.bias = conv.weight, conv.bias
        found.gain = nn.Parameter(torch.ones(conv.out_channels, device=conv.weight.device))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of images or maps [B, C, H, W]."""
        return self._conv_forward(x, standardised(self.weight, self.gain), self.bias)


class StandardisedLinear(nn.Linear):
    """A linear layer whose weights are standardised, with a gain for each output."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self.gain = nn.Parameter(torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [B, E] of inputs [B, D]."""
        return F.linear(x, standardised(self.weight, self.gain), self.bias)


def standardise(net: nn.Module) -> None:
    """Put a standardised convolution in the place of every plain one, with its initial weights."""
    for path, module in list(net.named_modules()):
        if type(module) is nn.Conv2d:
            net.set_submodule(path, StandardisedConv2d.of(module))
