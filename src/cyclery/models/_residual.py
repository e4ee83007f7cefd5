"""Residual blocks, and the residual network with norms after the convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.models._classifier import Classifier, layers_of
from cyclery.models._settings import Norm
from cyclery.models.layers import Dropout, Noise, Pool, conv_1x1, conv_3x3, initialise, norm_2d
from cyclery.models.layers.full import Residual


class Subsample(nn.Module):
    """Option A shortcut: every second pixel, and zeros for the channels that are new."""

    def __init__(self, stride: int, new_channels: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, new_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] as [B, C + new, ceil(H / stride), ceil(W / stride)]."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.new_channels))


class Block(Residual):
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
        # Has the maps before the ReLU as its output, for those who want them.
        self.total = nn.Identity()
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
        return F.relu(self.total(out + self.shortcut(x)))


class Bottleneck(Residual):
    """1x1, 3x3 and 1x1 convolutions with norms, added to a shortcut, then ReLU.

    The 3x3 one has the stride (torchvision's form); the last has four times the ``width``.
    """

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        outputs = 4 * width
        self.residual = nn.Sequential(
            conv_1x1(inputs, width),
            norm_2d(norm, width),
            nn.ReLU(),
            conv_3x3(width, width, stride),
            norm_2d(norm, width),
            nn.ReLU(),
            conv_1x1(width, outputs),
            norm_2d(norm, outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            project = conv_1x1(inputs, outputs, stride)
            self.shortcut = nn.Sequential(project, norm_2d(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps [B, 4 width, H / stride, W / stride]."""
        return F.relu(self.residual(x) + self.shortcut(x))


class PreBlock(nn.Module):
    """Norm, ReLU, convolution, two or three times, added to the raw input."""

    def __init__(
        self, inputs: int, width: int, outputs: int, stride: int, norm: Norm, bottleneck: bool
    ) -> None:
        super().__init__()
        convolutions = (
            [conv_1x1(inputs, width), conv_3x3(width, width, stride), conv_1x1(width, outputs)]
            if bottleneck
            else [conv_3x3(inputs, width, stride), conv_3x3(width, outputs)]
        )
        steps: list[nn.Module] = []
        for conv in convolutions:
            steps += [norm_2d(norm, conv.in_channels), nn.ReLU(), conv]
        self.residual = nn.Sequential(*steps)
        changes = stride != 1 or inputs != outputs
        self.shortcut = conv_1x1(inputs, outputs, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps [B, outputs, H / stride, W / stride]."""
        out: Tensor = self.residual(x) + self.shortcut(x)
        return out


class WideBlock(Residual):
    """Norm, activation, convolution, twice, with dropout before the second convolution.

    ``activated`` says that the shortcut begins after the first norm and activation. ``norm`` makes
    a norm of so many channels, ``activation`` an activation; ``dropout`` is the share dropped.
    """

    SHORTCUT = "project"

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        activated: bool,
        norm: Callable[[int], nn.Module],
        activation: Callable[[], nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        self.activated = activated
        self.activation = activation()
        self.norm1 = norm(inputs)
        self.conv1 = conv_3x3(inputs, outputs, stride)
        self.norm2 = norm(outputs)
        self.drop = Dropout(dropout)
        self.conv2 = conv_3x3(outputs, outputs)
        self.project = conv_1x1(inputs, outputs, stride) if inputs != outputs else None

    def convolutions(self) -> list[nn.Conv2d]:
        """Return the two convolutions."""
        return [self.conv1, self.conv2]

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps [B, outputs, H / stride, W / stride]."""
        active = self.activation(self.norm1(x))
        out = self.conv2(self.drop(self.activation(self.norm2(self.conv1(active)))))
        shortcut = active if self.activated else x
        total: Tensor = out + (shortcut if self.project is None else self.project(shortcut))
        return total


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
    """Stem, then ``blocks`` blocks for each of ``widths``; all but the first group halve.

    The stem is a 3x3 convolution of ``stem`` channels, or as many as the first group, with norm and
    ReLU. Another ``first`` module, of as many channels as the first group, stands for that group
    too, and no group halves. ``block`` makes a block of inputs, outputs and stride.
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
        first: nn.Module | None = None,
        block: Callable[[int, int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__(widths[-1], classes)
        block = block or partial(Block, norm=norm, project=project)
        inputs = widths[0] if first else stem or widths[0]
        self.stem = first or nn.Sequential(
            conv_3x3(channels, inputs), norm_2d(norm, inputs), nn.ReLU()
        )
        self.blocks = nn.ModuleList()
        for group, width in enumerate(widths):
            for index in range(0 if first and not group else blocks):
                stride = 2 if group and not index and not first else 1
                self.blocks.append(block(inputs, width, stride))
                inputs = width
        if all(isinstance(made, Block) for made in self.blocks) and not first:
            last = [f"blocks.{group * blocks + blocks - 1}" for group in range(len(widths))]
            self.stages = {f"{block}.total": f"{block}.residual.4" for block in last}
        self.survival = Survival(len(self.blocks), p_last) if p_last < 1 else None
        self.pool = Pool()
        initialise(self)

    def chain(self) -> Iterator[nn.Module]:
        """Yield the modules one after another; a UserError where blocks drop out at random."""
        if self.survival is not None:
            raise UserError(
                "model: blocks that drop out at random are no chain; choose another network."
            )
        yield from (*layers_of(self.stem), *self.blocks, self.pool)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled maps [B, last width] of images [B, C, H, W]."""
        x = self.stem(x)
        if self.survival is None:
            for block in self.blocks:
                x = block(x)
        else:
            for block, keep in zip(self.blocks, self.survival(), strict=True):
                x = block(x, keep)
        return self.pool(x)
