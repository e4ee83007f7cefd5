"""Full convolution: padding of k - 1, so that every weight of a filter sees every pixel.

O. Kayhan, J. van Gemert, On Translation Invariance in CNNs: Convolutional Layers can Exploit
Absolute Spatial Location (CVPR 2020, arXiv 2003.07064), as Brigato et al. (arXiv 2212.12478) put it
in residual networks: maps grow at each convolution, and identity paths are padded with zeros so
that pixels stay above one another. Deviation from its code (GEM): weights start as those of plain
networks here, where 3x3 convolutions have torch's own there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from torch import nn


class Residual(nn.Module):
    """A residual block: ``convolutions`` in order beside a path that is the identity, or nearly.

    ``SHORTCUT`` names the module of that path, which may be None.
    """

    SHORTCUT: ClassVar[str] = "shortcut"

    def convolutions(self) -> list[nn.Conv2d]:
        """Return the convolutions of the residual branch."""
        return [m for m in self.get_submodule("residual").modules() if isinstance(m, nn.Conv2d)]


def fill(net: nn.Module) -> None:
    """Make all convolutions of a network full; of poolings, those that overlap become 2 x 2."""
    for module in list(net.modules()):
        if isinstance(module, nn.Conv2d):
            module.padding = tuple(side - 1 for side in module.kernel_size)
        if isinstance(module, nn.MaxPool2d) and module.padding:
            module.kernel_size, module.stride, module.padding = 2, 2, 0
    for block in [m for m in net.modules() if isinstance(m, Residual)]:
        path = getattr(block, block.SHORTCUT) or nn.Identity()
        padded = nn.Sequential(nn.ZeroPad2d(margin(block.convolutions())), path)
        setattr(block, block.SHORTCUT, padded)


def margin(convolutions: Iterable[nn.Conv2d]) -> int:
    """Return the pixels that convolutions, one after another, add beyond those of equal size.

    On each side of their input: a filter of k pixels adds (k - 1) / 2 times the strides before it.
    """
    found, stride = 0, 1
    for conv in convolutions:
        found += stride * (conv.kernel_size[0] - 1) // 2
        stride *= conv.stride[0]
    return found
