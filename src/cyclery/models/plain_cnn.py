"""Plain convolutional networks of the teacher-assistant paper, by their number of convolutions.

S. I. Mirzadeh, M. Farajtabar, A. Li, N. Levine, A. Matsukawa, H. Ghasemzadeh, Improved Knowledge
Distillation via Teacher Assistant (AAAI 2020, arXiv 1902.03393). Layers, widths and initial
weights (torch's) are those of its code. Deviations: the convolutions have no bias, for the norm
that follows has one and the function is the same; the linear layer fits the maps of any image,
and where the last pooling would leave less than 2 x 2 pixels there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from cyclery.models._limits import check_among
from cyclery.models._settings import NORM, WIDTH, ModelSettings, Norm, Shape

if TYPE_CHECKING:
    from torch import nn

Widths = Literal["cifar10", "cifar100"]


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Plain CNN of TAKD (Mirzadeh et al. 2020): 3x3 convolutions with norms, max pooling, linear.

    The last pooling is left out where it would leave less than 2 x 2 pixels.
    """

    SIZES: ClassVar[tuple[int, ...]] = (2, 4, 6, 8, 10)
    size: int = field(default=2, metadata={"doc": "number of convolutions: 2, 4, 6, 8 or 10"})
    widths: Widths = field(
        default="cifar10",
        metadata={
            "doc": "channels that the paper took for cifar10 or cifar100; those of cifar100 are "
            "twice as many below size 10, and size 6 does not pool its last convolutions"
        },
    )
    width: float = field(default=1.0, metadata=WIDTH)
    norm: Norm = field(default="batch", metadata=NORM)

    def check(self, where: str) -> None:
        """Raise a UserError where the paper has no network of that size."""
        check_among(self.size, self.SIZES, f"{where}.size")

    def min_side(self) -> int:
        """Return the side at which no more than the last pooling is left out."""
        return {2: 4, 4: 4, 6: 8}.get(self.size, 16)


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return groups of convolution, norm and ReLU with max pooling, perhaps one hidden layer."""
    from torch import nn

    from cyclery.models._classifier import Classifier
    from cyclery.models.layers import conv_3x3, norm_2d, scaled

    groups, pooled, hidden = _layout(settings)
    channels, height, width = shape
    layers: list[nn.Module] = []
    for index, group in enumerate(groups):
        for outputs in (scaled(count, settings.width) for count in group):
            layers += [conv_3x3(channels, outputs), norm_2d(settings.norm, outputs), nn.ReLU()]
            channels = outputs
        if index < pooled and min(height, width) >= 4:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    layers.append(nn.Flatten())
    features = channels * height * width
    if hidden:
        hidden = scaled(hidden, settings.width)
        layers += [nn.Linear(features, hidden), nn.ReLU()]
    net = Classifier(hidden or features, classes)
    net.body = nn.Sequential(*layers)
    return net


def _layout(settings: Settings) -> tuple[list[list[int]], int, int]:
    """Return the channels by group of convolutions, the pooled groups, the hidden units or 0."""
    size, larger = settings.size, settings.widths == "cifar100"
    if size == 10:
        groups, hidden = [[32] * 2, [64] * 2, [128] * 2, [256] * 4], 512 if larger else 128
    else:
        base = 32 if larger else 16
        groups = [[base]] * 2 if size == 2 else [[base * 2**g] * 2 for g in range(size // 2)]
        hidden = 64 if size == 8 else 0
    return groups, 2 if larger and size == 6 else len(groups), hidden
