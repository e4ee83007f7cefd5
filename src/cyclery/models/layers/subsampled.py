"""Strided 1x1 convolutions of few channels, computed on the pixels that they read.

On processors with AVX2 but no AVX-512, the gradient of such a convolution's weights writes past its
workspace where the images are channels-last and the channels fewer than a block of 8: wrong
gradients, or a crash. oneDNN issue 6035 (3.12, in torch 2.14). Blocks are 16 wide with AVX-512.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 16


def _read(stride: tuple[int, ...], _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0][:, :, :: stride[0], :: stride[1]],)


def subsample(net: nn.Module) -> None:
    """Drop the pixels that strided 1x1 convolutions of fewer than 16 channels skip, before them.

    The function is the same, and so are the names and the initial weights.
    """
    for module in net.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and module.stride != (1, 1)
            and module.in_channels < BLOCK
        ):
            module.register_forward_pre_hook(partial(_read, module.stride))
            module.stride = (1, 1)
