"""Residual networks for small images.

- K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition (CVPR 2016,
  arXiv 1512.03385): the CIFAR networks of section 4.2 (6n + 2 layers, parameter-free option A
  shortcuts) and ResNet-18, here with a 3x3 stem.
- Y. Tian, D. Krishnan, P. Isola, Contrastive Representation Distillation (ICLR 2020, arXiv
  1910.10699), code (RepDistiller): the CIFAR networks with option B shortcuts, 1x1 convolutions
  with norms, and their "x4" forms. TAKD (arXiv 1902.03393) has the same networks.
- G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, Deep Networks with Stochastic Depth (ECCV
  2016, arXiv 1603.09382): equations 2-5, linear decay. Deviation: a dropped block is computed and
  multiplied by 0, so that one captured step serves every draw. The loss and the gradients are the
  paper's; no time is saved, and a dropped block's running batch statistics are updated too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.models.base import Shape
from cyclery.models.layers import Classifier, Noise, conv_1x1, conv_3x3, initialise, norm_2d, pool
from cyclery.models.settings import Norm, ResNet, ResNet18, ResNetB, StochasticDepth


class Subsample(nn.Module):
    """Option A shortcut: every second pixel, and zeros for the channels that are new."""

    def __init__(self, stride: int, new_channels: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, new_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] as [B, C + new, ceil(H / stride), ceil(W / stride)]."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.new_channels))


class Block(nn.Module):
    """Two 3x3 convolutions with norms, added to a shortcut, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, project: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_3x3(inputs, outputs, stride),
            norm_2d(norm, outputs),
            nn.ReLU(),
            conv_3x3(outputs, outputs),
            norm_2d(norm, outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = (
                nn.Sequential(conv_1x1(inputs, outputs, stride), norm_2d(norm, outputs))
                if project
                else Subsample(stride, outputs - inputs)
            )

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the maps; ``keep`` (0-dim) weighs the residual branch."""
        out = self.residual(x)
        if keep is not None:
            out = out * keep
        return F.relu(out + self.shortcut(x))


class Survival(Noise):
    """Which blocks survive a step: Bernoulli(p_l), p_l = 1 - l / L (1 - p_last), one per batch."""

    probability: Tensor

    def __init__(self, blocks: int, p_last: float) -> None:
        super().__init__()
        share = torch.arange(1, blocks + 1) / blocks
        self.register_buffer("probability", 1 - share * (1 - p_last), persistent=False)

    def forward(self) -> tuple[Tensor, ...]:
        """Return a 0-dim weight per block: 0 or 1 in training, p_l in evaluation."""
        p = self.probability
        if self.training:
            draw = torch.rand(p.shape, device=p.device, generator=self.generator)
            return (draw < p).to(p.dtype).unbind()
        return p.unbind()


class SmallImageResNet(Classifier):
    """3x3 stem, then ``blocks`` blocks for each of ``widths``; all but the first group halve.

    The stem has ``stem`` channels, or as many as the first group.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int],
        blocks: int,
        norm: Norm,
        project: bool = False,
        p_last: float = 1.0,
        stem: int | None = None,
    ) -> None:
        super().__init__(widths[-1], classes)
        inputs = stem or widths[0]
        self.stem = nn.Sequential(conv_3x3(channels, inputs), norm_2d(norm, inputs), nn.ReLU())
        self.blocks = nn.ModuleList()
        for group, width in enumerate(widths):
            for index in range(blocks):
                stride = 2 if group and not index else 1
                self.blocks.append(Block(inputs, width, stride, norm, project))
                inputs = width
        self.survival = Survival(len(self.blocks), p_last) if p_last < 1 else None
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled maps [B, last width] of images [B, C, H, W]."""
        keeps = self.survival() if self.survival is not None else [None] * len(self.blocks)
        x = self.stem(x)
        for block, keep in zip(self.blocks, keeps, strict=True):
            x = block(x, keep)
        return pool(x)


def resnet(settings: ResNet, shape: Shape, classes: int) -> SmallImageResNet:
    """Return the CIFAR network of the given depth."""
    blocks = (settings.depth - 2) // 6
    return SmallImageResNet(shape[0], classes, (16, 32, 64), blocks, settings.norm)


def resnet_b(settings: ResNetB, shape: Shape, classes: int) -> SmallImageResNet:
    """Return the CIFAR network of the given depth and widths with projections as shortcuts."""
    stem, *widths = settings.widths
    blocks = (settings.depth - 2) // 6
    return SmallImageResNet(
        shape[0], classes, widths, blocks, settings.norm, project=True, stem=stem
    )


def stochastic_depth(settings: StochasticDepth, shape: Shape, classes: int) -> SmallImageResNet:
    """Return the CIFAR network of the given depth with blocks that drop out."""
    blocks = (settings.depth - 2) // 6
    return SmallImageResNet(
        shape[0], classes, (16, 32, 64), blocks, "batch", p_last=settings.p_last
    )


def resnet18(settings: ResNet18, shape: Shape, classes: int) -> SmallImageResNet:
    """Return ResNet-18 with the small stem; its shortcuts are projections (option B)."""
    widths = (64, 128, 256, 512)
    return SmallImageResNet(shape[0], classes, widths, 2, settings.norm, project=True)
