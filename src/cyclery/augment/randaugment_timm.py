"""The RandAugment of timm's recipes as one batched stage, on the ops of PIL.

E. Cubuk et al., RandAugment (arXiv 1909.13719), as timm's ``rand-m9-mstd0.5-inc1`` has it, which
the published runs of Cyclical Focal Loss (L. Smith, arXiv 2202.08978) name: 15 ops whose effect
grows with the magnitude, a normal magnitude, and bilinear or bicubic interpolation at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import radians
from typing import TYPE_CHECKING, Literal

from cyclery.augment import Images, Op, Stage
from cyclery.augment._pil import WHITE, PilOps
from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor

_TOP = 10  # the greatest magnitude

# The coefficients of an image in one round, with the values that leave it as it is. Where a pixel
# comes from is turned, sheared (so many columns a row, or rows a column) or moved.
_BLEND = {"keep": 1.0, "contrast": 0.0, "colour": 0.0, "sharpness": 0.0, "factor": 1.0}
_MAP = {"still": 1.0, "equalize": 0.0, "bits": 8.0, "threshold": 256.0, "add": 0.0}
_PLACE = {"turn": 0.0, "shear_x": 0.0, "shear_y": 0.0, "move_x": 0.0, "move_y": 0.0}
_PARTS = {**_BLEND, **_MAP, **_PLACE}
_WHOLE = ("bits", "threshold", "add")  # cut to whole numbers
_SIGNED = ("factor", *_PLACE)  # of a random sign

# What each op writes into them: at magnitude 0, and what the full magnitude adds.
_OPS: dict[str, dict[str, tuple[float, float]]] = {
    "autocontrast": {"still": (0.0, 0.0)},
    "equalize": {"equalize": (1.0, 0.0)},
    "invert": {"threshold": (0.0, 0.0)},
    "rotate": {"turn": (0.0, radians(30))},
    "posterize": {"bits": (4.0, -4.0)},
    "solarize": {"threshold": (256.0, -256.0)},
    "solarize_add": {"add": (0.0, 110.0)},
    "colour": {"keep": (0.0, 0.0), "colour": (1.0, 0.0), "factor": (1.0, 0.9)},
    "contrast": {"keep": (0.0, 0.0), "contrast": (1.0, 0.0), "factor": (1.0, 0.9)},
    "brightness": {"keep": (0.0, 0.0), "factor": (1.0, 0.9)},
    "sharpness": {"sharpness": (1.0, 0.0), "factor": (1.0, 0.9)},
    "shear_x": {"shear_x": (0.0, 0.3)},
    "shear_y": {"shear_y": (0.0, 0.3)},
    "translate_x": {"move_x": (0.0, 0.45)},
    "translate_y": {"move_y": (0.0, 0.45)},
}


@dataclass(frozen=True)
class Settings(Op):
    """Apply timm's increasing RandAugment: n rounds, each with an op of its own for each image.

    In each round an image draws one of 15 ops, evenly and with replacement, and applies it with
    probability p at a magnitude of its own: normal with mean m and deviation ``std``, cut to 0 to
    10. At 10 it means: enhancement factors 1 +- 0.9, 0 of 8 bits (4 at 0), solarising every pixel,
    110 levels added to what is below 128, rotation by 30 degrees, shear by 0.3, moves by 0.45 of
    the side. Signs are drawn, and whether a geometric op is bilinear or bicubic. Grey images have
    no colour op.

    The ops are PIL's on whole grey levels 0..255, to which other images are scaled first; the
    interpolating ones may differ by a level where it rounds a sum that falls on one.
    """

    m: float = field(default=9.0, metadata={"doc": "mean magnitude", "low": 0.0, "high": 10.0})
    std: float = field(
        default=0.5, metadata={"doc": "deviation of the magnitude", "low": 0.0, "high": 100.0}
    )
    n: int = field(default=2, metadata={"doc": "rounds", "low": 1, "high": 16})
    p: float = field(
        default=0.5,
        metadata={"doc": "probability that a drawn op is applied", "above": 0.0, "high": 1.0},
    )
    fill: Literal["mean", "black"] = field(
        default="mean",
        metadata={
            "doc": "uncovered pixels: the mean pixel as a whole level, or black, as timm has it "
            "for networks that normalise nothing"
        },
    )

    @property
    def columns(self) -> int:
        """Return 5 a round: op, gate, magnitude, sign, interpolation."""
        return 5 * self.n

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where the images are neither grey nor in three colours."""
        if shape is not None and shape[0] not in (1, 3):
            raise UserError(f"{where}: images must have 1 or 3 channels (found {shape[0]}).")

    def stage(self, images: Images) -> Stage:
        """Return the rounds as one stage."""
        return IncreasingPolicy(self, images)


def choices_for(channels: int) -> tuple[str, ...]:
    """Return the names of the ops that are chosen from on images of so many channels."""
    return tuple(name for name in _OPS if name != "colour" or channels == 3)


class IncreasingPolicy(PilOps):
    """Rounds of one random op per image; ``Settings`` say what is drawn."""

    first: Tensor
    reach: Tensor
    signed: Tensor
    whole: Tensor
    x: Tensor
    y: Tensor
    taps: Tensor
    fill: Tensor

    def __init__(self, op: Settings, images: Images) -> None:
        super().__init__(images)
        self.rounds, self.p, self.m, self.std = op.n, op.p, op.m, op.std
        names = choices_for(self.channels)
        self.choices = len(names)
        # After the ops the identity, which stands for one that is not applied.
        rows = [[_OPS[n].get(part, (e, 0.0)) for part, e in _PARTS.items()] for n in names]
        rows.append([(e, 0.0) for e in _PARTS.values()])
        first, reach = torch.tensor(rows, dtype=torch.float64).unbind(2)
        self.constant("first", first)
        self.constant("reach", reach)
        self.constant("signed", torch.tensor([part in _SIGNED for part in _PARTS]))
        self.constant("whole", torch.tensor([part in _WHOLE for part in _PARTS]))
        self.constant("x", torch.arange(self.width, dtype=torch.float64) + 0.5)
        self.constant("y", torch.arange(self.height, dtype=torch.float64)[:, None] + 0.5)
        self.constant("taps", torch.arange(-1, 3)[:, None, None])
        levels = [min(round(mean * WHITE), WHITE) * (op.fill == "mean") for mean in images.mean]
        self.constant("fill", torch.tensor(levels, dtype=torch.uint8)[:, None, None])

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return float32 images in 0..255, not normalised."""
        image = self.whole_levels(x)
        for part in self._rounds(u):
            mapped = torch.empty_like(image)
            self.mapped(self.blended(image.float(), part), part, out=mapped)
            mapped.add_((mapped < 128) * part["add"])
            image = self._warped(mapped, part)
        return image.float()

    def _rounds(self, u: Tensor) -> list[dict[str, Tensor]]:
        """Return what each round does, all that does not depend on the images.

        Each value is [B, 1, 1, 1]; those that say where pixels come from are float64, as in PIL.
        """
        op, gate, level, sign, cubic = u.t().double().view(self.rounds, 5, -1).unbind(1)
        row = (op * self.choices).long().masked_fill_(gate >= self.p, self.choices).flatten()
        # Of 2^24 numbers, each stands for the middle of its share, so that none is infinite.
        noise = torch.erfinv(level.mul(2).add_(2.0**-24 - 1)).mul_(self.std * 2**0.5)
        strength = noise.add_(self.m).clamp_(0, _TOP).div_(_TOP).flatten()[:, None]
        added = self.reach.index_select(0, row).mul_(strength)
        turned = torch.where(self.signed & (sign.flatten()[:, None] > 0.5), -added, added)
        added = torch.where(self.whole, turned.trunc(), turned)
        values = self.first.index_select(0, row).add_(added).view(self.rounds, len(u), -1)
        values = values[..., None, None, None]
        part = dict(zip(_PARTS, values.unbind(2), strict=True))
        part |= {name: part[name].float() for name in (*_BLEND, "threshold")}
        part["still"], part["equalize"] = part["still"] > 0, part["equalize"] > 0
        # As many zeros at the end as bits are lost: 255 is eight ones.
        part["bits"] = (WHITE << (8 - part["bits"].int())).to(torch.uint8)
        part["add"] = part["add"].to(torch.uint8)
        part["cubic"] = cubic[..., None, None, None] >= 0.5
        by_round = zip(*(value.unbind() for value in part.values()), strict=True)
        return [dict(zip(part, found, strict=True)) for found in by_round]

    def _warped(self, image: Tensor, part: dict[str, Tensor]) -> Tensor:
        """Return ``image`` turned, sheared or moved, as PIL does it in float64.

        It turns about the middle of the image and shears from its corner. Beyond the border a
        kernel sees the outermost pixel; a pixel that comes from outside is filled.
        """
        cos, sin = part["turn"].cos(), part["turn"].sin()
        across, down = self.width / 2, self.height / 2
        corner_x = part["move_x"] * self.width + (across - cos * across + sin * down)
        corner_y = part["move_y"] * self.height + (down - sin * across - cos * down)
        x = cos * self.x + ((part["shear_x"] - sin) * self.y + corner_x)
        y = (part["shear_y"] + sin) * self.x + (cos * self.y + corner_y)
        inside = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)
        x, y = x - 0.5, y - 0.5
        column, row = x.floor(), y.floor()
        x, y = x.sub_(column), y.sub_(row)
        # [B, 4, H, W]: the columns, and the rows, that a kernel sees.
        columns = (column.long() + self.taps).clamp_(0, self.width - 1)
        rows = (row.long() + self.taps).clamp_(0, self.height - 1) * self.width
        flat, shape = image.flatten(2), (*image.shape[:2], 4, self.height, self.width)
        lines = []
        for start in rows.unbind(1):
            index = (columns + start[:, None]).flatten(1)[:, None].expand(-1, self.channels, -1)
            seen = flat.gather(2, index).view(shape).double()
            lines.append(_between(seen.unbind(2), x, part["cubic"]))
        made = _between(lines, y, part["cubic"]).clamp_(0, WHITE).to(torch.uint8)
        return torch.where(inside, made, self.fill)


def _between(values: Sequence[Tensor], share: Tensor, cubic: Tensor) -> Tensor:
    """Return what lies at ``share`` between the second and the third of four values.

    In the order of PIL's operations: where both are the same, so is the result, to the last bit.
    """
    before, left, right, after = values
    straight = (right - left).mul_(share).add_(left)
    slope, rest = right - before, before - left
    curve = (rest * 2).add_(right).sub_(after)
    bend = left - before - right + after
    curved = bend.mul_(share).add_(curve).mul_(share).add_(slope).mul_(share).add_(left)
    return torch.where(cubic, curved, straight)
