"""The ops of PIL on a batch of images, bit for bit, each image with coefficients of its own.

No op is a branch: the four enhancements share one blend, the other photometric ops one map from
grey level to grey level. PIL computes in numbers of several kinds; each step below names the kind
that it has to follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclery.augment._op import Images, Stage
from cyclery.common.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

WHITE = 255
"""The largest grey level, to which a policy scales its images."""

_LUMA = (19595, 38470, 7471)  # the grey of a colour, in 65536ths, as in PIL


class PilOps(Stage):
    """What stages have in common that draw from the ops of PIL."""

    max_value = WHITE
    white: Tensor
    grey: Tensor
    luma: Tensor

    def __init__(self, images: Images) -> None:
        self.channels, self.height, self.width = images.shape
        self.scale = WHITE / images.max_value
        self.constant("white", torch.tensor(WHITE, dtype=torch.uint8))
        self.constant("grey", torch.arange(WHITE + 1, dtype=torch.uint8))
        self.constant("luma", torch.tensor(_LUMA)[:, None, None] / 65536)

    def whole_levels(self, x: Tensor) -> Tensor:
        """Return ``x`` in whole grey levels 0..255, uint8."""
        if x.is_floating_point() or self.scale != 1:
            x = (x * self.scale).round_().to(torch.uint8)
        return x

    def blended(self, x: Tensor, part: dict[str, Tensor]) -> Tensor:
        """Return ``x`` moved away from itself without light, contrast, colour or detail.

        Levels that are not cut to whole ones yet, in float32 with product and sum rounded one by
        one, as C does.
        """
        shade = x
        if self.channels == 3:
            shade = (x * self.luma).sum(1, keepdim=True).add_(0.5).floor_()  # exact in 24 bits
        # The mean rounded half up: no such quotient is near a whole number, however it is rounded.
        pixels = self.height * self.width
        total = shade.sum((1, 2, 3), keepdim=True, dtype=torch.float64)
        mean = total.add_(pixels / 2 + 0.25).div_(pixels).floor_().float()
        blank = mean * part["contrast"]
        if self.channels == 3:
            blank = torch.addcmul(blank, shade, part["colour"])
        blank = torch.addcmul(blank, x, part["keep"])
        if min(self.height, self.width) >= 3:
            detail = smooth(x).sub_(x[:, :, 1:-1, 1:-1])
            blank[:, :, 1:-1, 1:-1].addcmul_(part["sharpness"], detail)
        return (x - blank).mul_(part["factor"]).add_(blank).clamp_(0, WHITE)

    def mapped(self, x: Tensor, part: dict[str, Tensor], out: Tensor | None = None) -> Tensor:
        """Cut ``x`` to whole levels and return what each of them becomes, in ``out``; uint8."""
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        # In float64, as in Python; where nothing is stretched, 1 x - 0.
        still = part["still"] | (low == high)
        scale = self.white / (high - low).masked_fill_(still, WHITE).double()
        offset = low.masked_fill_(still, 0) * scale
        levels = (x * scale).sub_(offset).to(torch.uint8)
        if self.height * self.width > WHITE:
            levels = _equalized(levels, part["equalize"], self.grey)
        levels.bitwise_and_(part["bits"])
        inverse = levels.bitwise_not()
        if out is None:
            return torch.where(levels < part["threshold"], levels, inverse)
        return torch.where(levels < part["threshold"], levels, inverse, out=out)


def _equalized(levels: Tensor, chosen: Tensor, grey: Tensor) -> Tensor:
    """Return ``levels`` [B, C, H, W], with an even histogram in the ``chosen`` images.

    A level becomes the number of pixels below it, counted in 255ths of the pixels below the highest
    level; where one such step is less than a pixel, so on all images of up to 255, PIL changes
    nothing. ``grey`` holds all levels. Sorting counts without a sum whose order could vary.
    """
    flat = levels.flatten(2)
    ordered = flat.sort(2).values
    highest = ordered[..., -1:].contiguous()
    step = torch.searchsorted(ordered, highest, out_int32=True).div_(WHITE, rounding_mode="floor")
    chosen = chosen.flatten(2) & (step > 0)
    each = grey.expand(*ordered.shape[:2], -1).contiguous()
    table = torch.searchsorted(ordered, each, out_int32=True).add_(step >> 1)
    table.div_(step.clamp_(min=1), rounding_mode="floor").clamp_(max=WHITE)
    table = torch.where(chosen, table.to(torch.uint8), grey)
    return table.gather(2, flat.long()).view_as(levels)


def smooth(x: Tensor) -> Tensor:
    """Return the inner pixels smoothed as PIL does, whole numbers [B, C, H - 2, W - 2].

    The weights are 5 for the pixel and 1 for each neighbour, over 13. The sum plus a half is never
    near a whole number, so the order of additions cannot matter.
    """
    inner = x[:, :, 1:-1]
    rows = (x[:, :, :-2] + inner).add_(x[:, :, 2:])
    box = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    return box.add_(inner[..., 1:-1], alpha=4).add_(6.5).div_(13).floor_()


def blurred(x: Tensor) -> Tensor:
    """Return the inner pixels as PIL's BLUR makes them, whole numbers [B, C, H - 4, W - 4].

    The mean of the outermost 16 of the 5 x 5 pixels around each.
    """
    rows = x[:, :, :-4] + x[:, :, 1:-3] + x[:, :, 2:-2] + x[:, :, 3:-1] + x[:, :, 4:]
    ends = rows[..., :-4] + rows[..., 4:]
    sides = x[:, :, :-4] + x[:, :, 4:]
    middle = sides[..., 1:-3] + sides[..., 2:-2] + sides[..., 3:-1]
    return (ends + middle).add_(8).div_(16).floor_()


def places(
    angle: Tensor, along: Tensor, down: Tensor, move: Tensor, x: Tensor, y: Tensor, middle: Tensor
) -> Tensor:
    """Return the column and the row that each pixel comes from, int32 [..., 2, H, W].

    ``angle`` [..., 1, 1, 1] in radians; ``along``, ``down`` and ``move`` [..., 2, 1, 1] say where
    the next pixel along, the next one down and all come from besides; float64. ``x`` [W] and ``y``
    [H, 1] are all columns and rows, int32, ``middle`` [2, 1, 1] half the width and the height. PIL
    steps through the image in 65536ths of a pixel (C ints from Python's numbers), from the middle
    of its first pixel; it turns about the middle of the image, shears from its corner, and moves by
    whole pixels.
    """
    axis = -3
    cos, sin = angle.cos(), angle.sin()
    turned_along, turned_down = torch.cat((cos, sin), axis), torch.cat((-sin, cos), axis)
    start = torch.sub(middle, turned_along, alpha=(len(x) - 1) / 2)
    start.sub_(turned_down, alpha=(len(y) - 1) / 2)
    start.add_(along, alpha=0.5).add_(down, alpha=0.5).add_((move + 0.5).floor_())
    steps = torch.stack((turned_along.add_(along), turned_down.add_(down), start))
    along, down, start = steps.mul_(65536).add_(0.5).floor_().int().unbind()
    return (along * x + (down * y + start)) >> 16
