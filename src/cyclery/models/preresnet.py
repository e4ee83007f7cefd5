"""Pre-activation residual networks for small images.

- K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks (ECCV 2016, arXiv
  1603.05027): norm, ReLU, convolution.
- S. Stanton, P. Izmailov, P. Kirichenko, A. Alemi, A. Wilson, Does Knowledge Distillation Really
  Work? (NeurIPS 2021, arXiv 2106.05945), code: PreResNet-20 has basic blocks, PreResNet-56
  bottlenecks; every shortcut takes the raw input of its block, through a 1x1 convolution without
  norm where the shape changes. The paper's ResNet-20 with layer norm is in no public code. OWN
  DEFINITION: PreResNet-20 with ``norm: layer``, one group over channels and pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cyclery.models._limits import check_depth, check_weights
from cyclery.models._settings import NORM, ModelSettings, Norm, Shape

if TYPE_CHECKING:
    from torch import nn

Blocks = Literal["by_depth", "basic", "bottleneck"]


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Pre-activation CIFAR ResNet (He et al. 2016b) as Stanton et al. (2021) build it.

    Their ResNet-20 with layer norm is in no public code; OWN DEFINITION: depth 20 with norm layer.
    """

    depth: int = field(
        default=20,
        metadata={"doc": "layers: 6n + 2 with basic blocks, 9n + 2 with bottlenecks"},
    )
    width: int = field(
        default=16,
        metadata={
            "doc": "channels of the first group; the others have 2 and 4 times",
            "low": 1,
            "high": 10_000,
        },
    )
    blocks: Blocks = field(
        default="by_depth",
        metadata={
            "doc": "basic: two 3x3 convolutions; bottleneck: 1x1, 3x3, 1x1 with 4 times the "
            "channels after the last; by_depth: basic below depth 44, bottleneck from there on"
        },
    )
    norm: Norm = field(default="batch", metadata=NORM)

    @property
    def bottleneck(self) -> bool:
        """Return whether the blocks are bottlenecks."""
        return self.blocks == "bottleneck" or (self.blocks == "by_depth" and self.depth >= 44)

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not a whole number of blocks."""
        if self.bottleneck:
            check_depth(self.depth, 9, 2, "47, 56, 110 or 164", f"{where} with bottlenecks")
        else:
            check_depth(self.depth, 6, 2, "20, 32 or 38", f"{where} with basic blocks")
        # Three groups, the channels of which are 1, 2 and 4 times the width.
        per_layer = 17 / 9 if self.bottleneck else 3
        check_weights(int((self.depth - 2) * per_layer * 21 * self.width**2), where, "width")


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return stem, three groups of blocks, norm and ReLU before the pooling."""
    from torch import nn

    from cyclery.models._classifier import Classifier
    from cyclery.models._residual import PreBlock
    from cyclery.models.layers import Pool, conv_3x3, initialise, norm_2d

    bottleneck = settings.bottleneck
    expansion, per_block = (4, 9) if bottleneck else (1, 6)
    net = Classifier(4 * settings.width * expansion, classes)
    layers: list[nn.Module] = [conv_3x3(shape[0], settings.width)]
    inputs = settings.width
    for group in range(3):
        width = settings.width * 2**group
        for index in range((settings.depth - 2) // per_block):
            stride = 2 if group and not index else 1
            outputs = width * expansion
            layers.append(PreBlock(inputs, width, outputs, stride, settings.norm, bottleneck))
            inputs = outputs
    net.body = nn.Sequential(*layers, norm_2d(settings.norm, inputs), nn.ReLU(), Pool())
    return initialise(net)
