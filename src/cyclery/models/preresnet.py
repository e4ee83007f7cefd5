"""Residual networks for small images with the norms before the convolutions.

- K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks (ECCV 2016, arXiv
  1603.05027): norm, ReLU, convolution.
- S. Stanton, P. Izmailov, P. Kirichenko, A. Alemi, A. Wilson, Does Knowledge Distillation Really
  Work? (NeurIPS 2021, arXiv 2106.05945), code: PreResNet-20 has basic blocks, PreResNet-56
  bottlenecks; every shortcut takes the raw input of its block, through a 1x1 convolution without
  norm where the shape changes. The paper's ResNet-20 with layer norm is in no public code. OWN
  DEFINITION: PreResNet-20 with ``norm: layer``, one group over channels and pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

from cyclery.models.base import Shape
from cyclery.models.layers import Classifier, conv_1x1, conv_3x3, initialise, norm_2d, pool
from cyclery.models.settings import Norm, PreResNet


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


class PreActivation(Classifier):
    """Stem, three groups of blocks, norm and ReLU before the pooling."""

    def __init__(self, settings: PreResNet, shape: Shape, classes: int) -> None:
        bottleneck = settings.bottleneck
        expansion, per_block = (4, 9) if bottleneck else (1, 6)
        super().__init__(4 * settings.width * expansion, classes)
        layers: list[nn.Module] = [conv_3x3(shape[0], settings.width)]
        inputs = settings.width
        for group in range(3):
            width = settings.width * 2**group
            for index in range((settings.depth - 2) // per_block):
                stride = 2 if group and not index else 1
                outputs = width * expansion
                layers.append(PreBlock(inputs, width, outputs, stride, settings.norm, bottleneck))
                inputs = outputs
        self.body = nn.Sequential(*layers, norm_2d(settings.norm, inputs), nn.ReLU())
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled maps [B, D] of images [B, C, H, W]."""
        return pool(self.body(x))


def preresnet(settings: PreResNet, shape: Shape, classes: int) -> PreActivation:
    """Return the pre-activation network of the given depth."""
    return PreActivation(settings, shape, classes)
