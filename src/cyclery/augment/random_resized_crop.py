"""Random resized crop: a random rectangle becomes the whole image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cyclery.augment import Images, Op, Stage
from cyclery.augment._ranges import ATTEMPTS, Rectangles, check_range, first_fitting
from cyclery.augment._taps import summed
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor

_LIMITS = {"above": 0.0, "high": 1.0}


@dataclass(frozen=True)
class Settings(Op):
    """Crop a random rectangle and resize it to the image's size, as torchvision does.

    Its area is uniform, its aspect log-uniform; one that does not fit is drawn again, up to 10
    times, after which the largest part of the image's middle is taken that has an allowed aspect.

    A crop is never larger than the image, so antialiasing blurs nothing and leaves ``bilinear`` as
    it is. ``bicubic`` has with it the kernel of PIL (a = -0.5, weights of what lies in the crop),
    without it that of torch (a = -0.75, the crop's border repeated); values beyond the range are
    cut.
    """

    area: tuple[float, float] = field(
        default=(0.08, 1.0),
        metadata={"doc": "least and greatest share of the image", **_LIMITS},
    )
    aspect: tuple[float, float] = field(
        default=(3 / 4, 4 / 3), metadata={"doc": "least and greatest width / height", "above": 0.0}
    )
    interpolation: Literal["bilinear", "bicubic"] = field(
        default="bilinear", metadata={"doc": "between pixels"}
    )
    antialias: bool = field(
        default=True, metadata={"doc": "which kernel bicubic has; the same for bilinear"}
    )

    @property
    def columns(self) -> int:
        """Return 22: area and aspect ten times, top, left."""
        return 2 * ATTEMPTS + 2

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where a range is upside down."""
        check_range(self.area, f"{where}.area")
        check_range(self.aspect, f"{where}.aspect")

    def stage(self, images: Images) -> Stage:
        """Return what crops and resizes."""
        return ResizedCrop(self, images)


class ResizedCrop(Stage):
    """Resize along the rows, then along the columns, each image from a rectangle of its own."""

    sides: Tensor
    middle: Tensor
    down: Tensor
    across: Tensor
    taps: Tensor

    def __init__(self, op: Settings, images: Images) -> None:
        self.cubic, self.antialias = op.interpolation == "bicubic", op.antialias
        self.largest = images.max_value
        _, height, width = images.shape
        narrow, wide = op.aspect
        self.rectangles = Rectangles(op.area, (1 / wide, 1 / narrow), height * width)
        self.constant("sides", torch.tensor([height, width], dtype=torch.float64))
        self.constant("middle", torch.tensor(_middle(height, width, op.aspect)).double())
        self.constant("down", (torch.arange(height) + 0.5) / height)
        self.constant("across", (torch.arange(width) + 0.5) / width)
        self.constant("taps", torch.arange(*((-1, 3) if self.cubic else (0, 2)))[:, None])

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return float32 images in 0..max_value."""
        drawn = self.rectangles(u[:, : 2 * ATTEMPTS])
        fits = ((drawn > 0) & (drawn <= self.sides)).all(2)
        size = first_fitting(drawn, fits, self.middle)
        room, place = self.sides - size, u[:, 2 * ATTEMPTS :].double()
        # What stands in for ten that do not fit stands in the middle.
        first = torch.where(fits.any(1, keepdim=True), place * (room + 1), room / 2).floor_()
        x = x.float()
        for side, centres in ((2, self.down), (3, self.across)):
            corner, length = first[:, side - 2, None].float(), size[:, side - 2, None].float()
            index, weight = self._taps(centres, length)
            x = summed(x, index.add_(corner[:, None].long()), weight, side)
        return x.clamp_(0, self.largest) if self.cubic else x

    def _taps(self, centres: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return which pixels of a crop of ``length`` [B, 1] make each new one, and their weights.

        Both are [B, taps, H or W]; ``centres`` are where the new pixels lie, as shares.
        """
        centre = centres * length - 0.5
        low = centre.floor()
        place = low.long()[:, None] + self.taps
        distance = (centre[:, None] - place).abs_()
        last = length[:, None].long() - 1
        weight = _keys(distance, -0.5 if self.antialias else -0.75) if self.cubic else 1 - distance
        if self.cubic and self.antialias:
            weight = weight * ((place >= 0) & (place <= last))
            weight = weight / weight.sum(1, keepdim=True)
        return torch.minimum(place, last).clamp_(min=0), weight


def _keys(distance: Tensor, a: float) -> Tensor:
    """Return the cubic kernel of Keys (1981) at distances 0 to 2."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, far)


def _middle(height: int, width: int, aspect: tuple[float, float]) -> tuple[int, int]:
    """Return the largest height and width of an allowed aspect, width / height."""
    narrow, wide = aspect
    if width / height < narrow:
        return round(width / narrow), width
    if width / height > wide:
        return height, round(height * wide)
    return height, width
