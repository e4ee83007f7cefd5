"""The RandAugment of FixMatch and UDA as one batched stage, bitwise equal to PIL.

K. Sohn et al., FixMatch (NeurIPS 2020, arXiv 2001.07685), list of transformations; Q. Xie et al.,
UDA (NeurIPS 2020, arXiv 1904.12848); both on the ops of PIL as their published codes call them.
An image is uint8 [channels + 1, H, W], the last channel its transparency: 255, or 0 where a
geometric op or a hole has left nothing. There the result is the mean pixel, zero once normalised.

Every op is a row of coefficients, none is a branch: the four enhancements share one blend, the
other photometric ops one map from grey level to grey level, the geometric ops one gather. PIL
computes in numbers of several kinds; each step below names the kind that it has to follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import radians
from typing import TYPE_CHECKING, Literal

from cyclery.augment import Images, Op, Stage
from cyclery.augment._pil import WHITE, PilOps, places
from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor

_SIDE = 32  # of the images that the pixel counts of the published codes are meant for
_LEVELS = range(1, 10)  # of 10

_FIXMATCH_OPS = (
    "identity",
    "autocontrast",
    "brightness",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "equalize",
    "colour",
)
_UDA_OPS = (*_FIXMATCH_OPS[1:], "invert", "cutout")
OPS: dict[str, tuple[str, ...]] = {
    "fixmatch_paper": _FIXMATCH_OPS,
    "fixmatch_code": _FIXMATCH_OPS,
    "uda": _UDA_OPS,
}
"""What each form of a policy chooses from on colour images; on grey ones all but ``colour``."""

# The coefficients of an image in one round, with the values that leave it as it is. Those of the
# geometry are x, y pairs: where the next pixel along, and the next one down, comes from besides
# (the entries that no op writes fill the pairs up), and the move; their sign is drawn.
_BLEND = {"keep": 1.0, "contrast": 0.0, "colour": 0.0, "sharpness": 0.0, "factor": 1.0}
_MAP = {"still": 1.0, "equalize": 0.0, "bits": 8.0, "threshold": 256.0, "plain": 0.0, "half": 0.0}
_PLACE = ("along_x", "shear_y", "shear_x", "down_y", "move_x", "move_y", "rotate")
_PARTS = {**_BLEND, **_MAP, **dict.fromkeys(_PLACE, 0.0)}
_BITS = list(_PARTS).index("bits")

# What each op writes into them; None is the value that goes with the level. "plain" takes the
# transparency away, as the published codes do before these ops.
_WRITES: dict[str, dict[str, float | None]] = {
    "identity": {},
    "autocontrast": {"still": 0.0, "plain": 255.0},
    "equalize": {"equalize": 1.0, "plain": 255.0},
    "invert": {"threshold": 0.0, "plain": 255.0},
    "posterize": {"bits": None, "plain": 255.0},
    "solarize": {"threshold": None, "plain": 255.0},
    "brightness": {"keep": 0.0, "factor": None},
    "contrast": {"keep": 0.0, "contrast": 1.0, "factor": None},
    "colour": {"keep": 0.0, "colour": 1.0, "factor": None},
    "sharpness": {"sharpness": 1.0, "factor": None},
    "rotate": {"rotate": None},
    "shear_x": {"shear_x": None},
    "shear_y": {"shear_y": None},
    "translate_x": {"move_x": None},
    "translate_y": {"move_y": None},
    "cutout": {"half": None},
}
_ENHANCEMENTS = ("brightness", "contrast", "colour", "sharpness")


@dataclass(frozen=True)
class Settings(Op):
    """Apply the RandAugment of the semi-supervised papers: n rounds, each with an op of its own.

    In each round an image draws one op, evenly and with replacement, and applies it with
    probability p at a level and, where it is geometric, with a sign of its own. The ops are PIL's,
    bit for bit, on whole grey levels 0..255, to which other images are scaled first.

    ``fixmatch_paper`` has the ranges that FixMatch prints (Sohn et al. 2020, arXiv 2001.07685,
    appendix), levels uniform and continuous: enhancement factors 0.05 to 0.95, 4 to 8 bits,
    solarising from any grey level, rotation up to 30 degrees, shear up to 0.3, moves up to 0.3 of
    the side. ``fixmatch_code`` has its 14 ops as the published code does, at a whole level m of 1
    to 9: factors 0.1 + 0.18 m, 4 to 1 bits, solarising from 256 - 25.6 m, rotation by 3 m degrees,
    shear by 0.03 m, moves by m pixels. ``uda`` has the same ranges on the 15 ops of UDA's code (Xie
    et al. 2020, arXiv 1904.12848): with invert, and cutout of a square of 2 m pixels, but without
    identity. Pixel counts are for sides of 32, and in proportion, rounded down, for others. Grey
    images have no colour op.

    Pixels that a geometric op uncovers and the hole of UDA's cutout become zero after
    normalisation, unless autocontrast, equalize, invert, posterize or solarize follows, which makes
    plain pixels of them, as it makes a transparent image opaque in both published codes.
    """

    form: Literal["fixmatch_paper", "fixmatch_code", "uda"] = field(
        default="fixmatch_paper", metadata={"doc": "ops and their ranges"}
    )
    n: int = field(default=2, metadata={"doc": "rounds", "low": 1, "high": 16})
    p: float = field(
        default=0.5,
        metadata={"doc": "probability that a drawn op is applied", "above": 0.0, "high": 1.0},
    )

    @property
    def columns(self) -> int:
        """Return 4 a round: op, gate, level, sign; after these 2 a round for UDA's cutout."""
        return (6 if self.form == "uda" else 4) * self.n

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where the images are neither grey nor in three colours."""
        if shape is not None and shape[0] not in (1, 3):
            raise UserError(f"{where}: images must have 1 or 3 channels (found {shape[0]}).")

    def stage(self, images: Images) -> Stage:
        """Return the rounds as one stage."""
        names = choices_for(self.form, images.shape[0])
        return RandomPolicy(self.form, names, self.n, self.p, images)


def choices_for(form: str, channels: int) -> tuple[str, ...]:
    """Return the names of the ops that a policy chooses from on images of so many channels."""
    return tuple(name for name in OPS[form] if name != "colour" or channels == 3)


class RandomPolicy(PilOps):
    """``rounds`` of one op per image, drawn from ``names`` and applied with probability ``p``."""

    first: Tensor
    span: Tensor
    middle: Tensor
    last: Tensor
    x: Tensor
    y: Tensor
    hole: Tensor
    mean: Tensor

    def __init__(
        self, form: str, names: Sequence[str], rounds: int, p: float, images: Images
    ) -> None:
        super().__init__(images)
        self.rounds, self.p, shape = rounds, p, images.shape
        self.choices, self.holes = len(names), "cutout" in names
        ranges = [_paper(shape)] if form == "fixmatch_paper" else [_code(shape, m) for m in _LEVELS]
        self.levels = len(ranges)
        first, span = _table(names, ranges)
        self.constant("first", first)
        self.constant("span", span)
        self.constant("x", torch.arange(self.width, dtype=torch.int32))
        self.constant("y", torch.arange(self.height, dtype=torch.int32)[:, None])
        sides = torch.tensor([self.width, self.height])[:, None, None]
        self.constant("middle", sides.double() / 2)
        self.constant("last", sides.int() - 1)
        # PIL images hold whole levels, so a hole shows the mean cut to one; transparent again.
        fill = torch.tensor(images.mean, dtype=torch.float64)[:, None, None] * WHITE
        self.constant("hole", torch.cat((fill, fill.new_zeros(1, 1, 1))).to(torch.uint8))
        self.constant("mean", fill.float())

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return float32 images in 0..255, not normalised."""
        x = self.whole_levels(x)
        image = torch.cat((x, self.white.expand(len(x), 1, self.height, self.width)), 1)
        for part in self._rounds(u):
            seen, alpha = image[:, : self.channels], image[:, self.channels :]
            self.mapped(self.blended(seen.float(), part), part, out=seen)
            alpha.bitwise_or_(part["plain"])
            index = part["index"].expand(-1, self.channels + 1, -1)
            image = image.flatten(2).gather(2, index).view_as(image).mul_(part["inside"])
            if self.holes:
                image = torch.where(part["hole"], self.hole, image)
        seen, alpha = image[:, : self.channels], image[:, self.channels :]
        return torch.where(alpha > 0, seen, self.mean)

    def _rounds(self, u: Tensor) -> list[dict[str, Tensor]]:
        """Return what each round does, all that does not depend on the images.

        Coefficients are [B, 1, 1, 1]; ``index`` [B, 1, H x W] says where each pixel comes from,
        ``inside`` and ``hole`` [B, 1, H, W] whether from the image and whether it is cut out.
        All rounds are computed at once: on small images the number of calls is what costs.
        """
        shape = (self.rounds, -1, len(u))
        numbers = u.t().double()
        op, gate, level, sign = numbers[: 4 * self.rounds].view(shape).unbind(1)
        row = (op * self.choices).long().masked_fill_(gate >= self.p, self.choices)
        row = row.mul_(self.levels).add_((level * self.levels).long()).flatten()
        span = self.span.index_select(0, row).mul_(level.flatten()[:, None])
        values = self.first.index_select(0, row).add_(span)
        values = values.view(self.rounds, len(u), -1, 1, 1)
        values[:, :, _BITS].floor_()  # before float32 can round up
        drawn = torch.copysign(values[:, :, -len(_PLACE) :], 0.5 - sign[..., None, None, None])
        place = self._places(drawn)
        near = torch.minimum(place, self.last).clamp_(min=0)
        column, row = (near == place).unbind(2)
        index = torch.add(near[:, :, 0], near[:, :, 1], alpha=self.width).long()
        part = dict(zip(_PARTS, values.float()[..., None].unbind(2), strict=True))
        part["index"] = index.view(self.rounds, len(u), 1, -1)
        part["inside"] = (column & row).to(torch.uint8)[:, :, None]
        part["still"], part["equalize"] = part["still"] > 0, part["equalize"] > 0
        # As many zeros at the end as bits are lost: 255 is eight ones.
        part["bits"] = (WHITE << (8 - part["bits"].int())).to(torch.uint8)
        part["plain"] = part["plain"].to(torch.uint8)
        if self.holes:
            part["hole"] = self._holes(numbers[4 * self.rounds :].view(shape), part["half"])
        by_round = zip(*(value.unbind() for value in part.values()), strict=True)
        return [dict(zip(part, found, strict=True)) for found in by_round]

    def _places(self, drawn: Tensor) -> Tensor:
        """Return the column and the row that each pixel comes from, int32 [rounds, B, 2, H, W].

        ``drawn`` [rounds, B, 7, 1, 1] holds the coefficients of ``_PLACE``.
        """
        along, down, move, angle = drawn.split((2, 2, 2, 1), 2)
        return places(angle, along, down, move, self.x, self.y, self.middle)

    def _holes(self, centre: Tensor, half: Tensor) -> Tensor:
        """Return where a square of side 2 ``half`` around a pixel lies, [rounds, B, 1, H, W].

        ``centre`` [rounds, 2, B], its row and column, is uniform in [0, 1).
        """
        row, column = centre[..., None, None, None].unbind(1)
        row, column = (row * self.height).floor_(), (column * self.width).floor_()
        rows = (self.y >= row - half) & (self.y < row + half)
        return rows & (self.x >= column - half) & (self.x < column + half)


def _paper(shape: Shape) -> dict[str, tuple[float, float]]:
    """Return the least value of each op and how far its values reach beyond, as FixMatch prints.

    Bits are cut to whole ones, 4 to 8.
    """
    _, height, width = shape
    return {
        **dict.fromkeys(_ENHANCEMENTS, (0.05, 0.9)),
        "posterize": (4, 5),
        "solarize": (0, 256),
        "rotate": (0, radians(30)),
        "shear_x": (0, 0.3),
        "shear_y": (0, 0.3),
        "translate_x": (0, 0.3 * width),
        "translate_y": (0, 0.3 * height),
    }


def _code(shape: Shape, level: int) -> dict[str, tuple[float, float]]:
    """Return the value of each op at a level, in the order of operations of the published code."""
    _, height, width = shape
    values: dict[str, float] = {
        **dict.fromkeys(_ENHANCEMENTS, level * 1.8 / 10 + 0.1),
        "posterize": 4 - level * 4 // 10,
        "solarize": 256 - level * 256 // 10,
        "rotate": radians(level * 30 // 10),
        "shear_x": level * 0.3 / 10,
        "shear_y": level * 0.3 / 10,
        "translate_x": level * width // _SIDE,
        "translate_y": level * height // _SIDE,
        "cutout": level * min(height, width) // _SIDE,
    }
    return {name: (value, 0.0) for name, value in values.items()}


def _table(
    names: Sequence[str], ranges: Sequence[dict[str, tuple[float, float]]]
) -> tuple[Tensor, Tensor]:
    """Return coefficients at the start of each range and what its length adds, float64.

    A row for each op and, within it, each of ``ranges``; after the ops the identity, which stands
    for one that is not applied.
    """
    rows = []
    for name in (*names, "identity"):
        for values in ranges:
            written = {**_PARTS, **_WRITES[name]}.values()
            low, reach = values.get(name, (0.0, 0.0))
            rows.append([(low, reach) if part is None else (part, 0.0) for part in written])
    first, span = torch.tensor(rows, dtype=torch.float64).unbind(2)
    return first.contiguous(), span.contiguous()
