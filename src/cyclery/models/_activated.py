"""Layers that begin with their activation and norm, and the blocks of the private WRN."""

from __future__ import annotations

from math import gcd, sqrt
from typing import TypeVar

from torch import Tensor, nn

from cyclery.models._norm_last import NormLastSettings
from cyclery.models.layers.standardised import standardise

M = TypeVar("M", bound=nn.Module)
# A normal distribution that is cut at two deviations has this deviation.
CUT = 0.87962566103423978


def activated(settings: NormLastSettings, channels: int) -> list[nn.Module]:
    """Return ReLU and norm of [B, channels, ...], in the order that the settings ask for."""
    if settings.norm == "none":
        return [nn.ReLU()]
    norm = nn.GroupNorm(gcd(settings.groups, channels), channels, settings.norm_eps)
    return [nn.ReLU(), norm] if settings.order == "relu_norm" else [norm, nn.ReLU()]


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution with a bias that keeps the size up to its stride."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)


class ActivatedBlock(nn.Module):
    """Activation, norm and 3x3 convolution, twice, added to a shortcut.

    The first block of a stage projects its input, activated and normalised by a norm of its own.
    """

    def __init__(
        self, settings: NormLastSettings, inputs: int, outputs: int, stride: int, project: bool
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *activated(settings, inputs),
            conv(inputs, outputs, 3, stride),
            *activated(settings, outputs),
            conv(outputs, outputs, 3),
        )
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(
                *activated(settings, inputs), conv(inputs, outputs, 1, stride)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps [B, outputs, H / stride, W / stride]."""
        total: Tensor = self.residual(x) + self.shortcut(x)
        return total


def drawn(net: M, settings: NormLastSettings) -> M:
    """Return ``net`` with initial weights as the paper's code draws them, biases 0.

    Convolutions from N(0, 1 / fan-in), of which standardisation leaves the direction; linear layers
    from one that is cut at two deviations, with the same variance.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            std = 1 / sqrt(module.weight[0].numel())
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=std)
            else:
                std /= CUT
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    if settings.standardised:
        standardise(net)
    return net
