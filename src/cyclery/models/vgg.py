"""VGG networks for small images.

- K. Simonyan, A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition
  (ICLR 2015, arXiv 1409.1556), table 1, without its large linear layers.
- Y. Tian, D. Krishnan, P. Isola, Contrastive Representation Distillation (ICLR 2020, arXiv
  1910.10699), code (RepDistiller): the defaults. VGG-8 is its own. Convolutions have a bias even
  before a norm, where it does nothing but count. Deviation: the last layer starts as torch's does,
  not from N(0, 0.01^2).
- S. Stanton, P. Izmailov, P. Kirichenko, A. Alemi, A. Wilson, Does Knowledge Distillation Really
  Work? (NeurIPS 2021, arXiv 2106.05945), code: VGG-16 without norms, five poolings, and two hidden
  linear layers of 512 units with dropout of one half before each.
"""

from __future__ import annotations

from torch import Tensor, nn

from cyclery.models.base import Shape
from cyclery.models.layers import Classifier, Dropout, conv_3x3, initialise, norm_2d, pool, scaled
from cyclery.models.settings import Vgg

CHANNELS = (64, 128, 256, 512, 512)
# Convolutions of each group by depth.
GROUPS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VggNet(Classifier):
    """Five groups of convolution, norm and ReLU, mean over the pixels, hidden linear layers."""

    def __init__(self, settings: Vgg, shape: Shape, classes: int) -> None:
        widths = [scaled(width, settings.width) for width in CHANNELS]
        super().__init__(widths[-1], classes)
        layers: list[nn.Module] = []
        inputs = shape[0]
        for index, (width, depth) in enumerate(zip(widths, GROUPS[settings.depth], strict=True)):
            for _ in range(depth):
                layers.append(conv_3x3(inputs, width, bias=True))
                if settings.norm != "none":
                    layers.append(norm_2d(settings.norm, width))
                layers.append(nn.ReLU())
                inputs = width
            if index < settings.pools:
                layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers)
        hidden: list[nn.Module] = []
        for _ in range(settings.hidden):
            hidden += [Dropout(settings.dropout), nn.Linear(inputs, inputs), nn.ReLU()]
        self.hidden = nn.Sequential(*hidden)
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Return the last hidden layer, or else the pooled maps, [B, D] of images [B, C, H, W]."""
        out: Tensor = self.hidden(pool(self.body(x)))
        return out


def vgg(settings: Vgg, shape: Shape, classes: int) -> VggNet:
    """Return the VGG of the given depth."""
    return VggNet(settings, shape, classes)
