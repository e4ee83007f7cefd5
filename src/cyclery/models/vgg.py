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

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from cyclery.common.errors import UserError
from cyclery.models._limits import check_among
from cyclery.models._settings import NORMS, WIDTH, ModelSettings, Shape

if TYPE_CHECKING:
    from torch import nn

NormOrNone = Literal["batch", "group", "layer", "none"]
CHANNELS = (64, 128, 256, 512, 512)
# Convolutions of each group by depth.
GROUPS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


@dataclass(frozen=True)
class Settings(ModelSettings):
    """VGG for small images: five groups of 3x3 convolutions, max pooling after the first groups.

    The defaults are VGG-8 of RepDistiller (Tian et al. 2020). VGG-16 of Stanton et al. (2021) has
    depth 16, norm none, pools 5, hidden 2, dropout 0.5.
    """

    DEPTHS: ClassVar[tuple[int, ...]] = (8, 11, 13, 16, 19)
    depth: int = field(default=8, metadata={"doc": "name of the network: 8, 11, 13, 16 or 19"})
    norm: NormOrNone = field(
        default="batch", metadata={"doc": NORMS + "; none (convolution and ReLU alone)"}
    )
    pools: int = field(
        default=3,
        metadata={
            "doc": "groups that a 2x2 max pooling follows, from the first on; the mean over the "
            "pixels comes last. RepDistiller: 3, and 4 for images of 64 x 64 pixels",
            "low": 1,
            "high": 5,
        },
    )
    hidden: int = field(
        default=0,
        metadata={
            "doc": "hidden linear layers before the last one, each as wide as the last group and "
            "with ReLU",
            "low": 0,
            "high": 2,
        },
    )
    dropout: float = field(
        default=0.0,
        metadata={"doc": "share dropped before each hidden linear layer", "low": 0, "high": 0.9},
    )
    width: float = field(default=1.0, metadata=WIDTH)

    def check(self, where: str) -> None:
        """Raise a UserError for an unknown depth, and where dropout would have no place."""
        check_among(self.depth, self.DEPTHS, f"{where}.depth")
        if self.dropout and not self.hidden:
            raise UserError(
                f"{where}.dropout: stands before hidden layers; set hidden to 1 or 2, or dropout "
                f"to 0 (found dropout {self.dropout} with hidden 0)."
            )

    def min_side(self) -> int:
        """Return the side of which the poolings leave one pixel."""
        return int(2**self.pools)


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return five groups of convolution, norm and ReLU, the mean over the pixels, hidden layers."""
    from torch import nn

    from cyclery.models._classifier import Classifier
    from cyclery.models.layers import Dropout, Pool, conv_3x3, initialise, norm_2d, scaled

    widths = [scaled(width, settings.width) for width in CHANNELS]
    net = Classifier(widths[-1], classes)
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
    net.body = nn.Sequential(*layers, Pool())
    hidden: list[nn.Module] = []
    for _ in range(settings.hidden):
        hidden += [Dropout(settings.dropout), nn.Linear(inputs, inputs), nn.ReLU()]
    net.hidden = nn.Sequential(*hidden)
    return initialise(net)
