"""RandAugment (Cubuk et al., 2020) as one batched stage with a continuous magnitude.

E. Cubuk, B. Zoph, J. Shlens, Q. Le, RandAugment (CVPR workshops 2020, arXiv 1909.13719). Each op
follows PIL's definition; deviations, all there so that a schedule can drive the magnitude without
steps or jumps: values are not rounded to whole grey levels between ops, autocontrast is blended in
by the magnitude, the solarising threshold lies above every pixel at magnitude 0, and the warps
interpolate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import radians
from typing import TYPE_CHECKING

from cyclery.augment import Images, Op, Stage
from cyclery.augment._solarise import solarise
from cyclery.common.lazy import F, torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor

OPS = (
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
)
"""What RandAugment chooses from on grey images; images of three channels add ``colour``."""

# The coefficients of an image in one round, and how many numbers each is (shear and move: x, y).
_PARTS = {
    "autocontrast": 1,
    "scale": 1,
    "contrast": 1,
    "colour": 1,
    "sharpness": 1,
    "solarize": 1,
    "posterize": 1,
    "rotate": 1,
    "shear": 2,
    "move": 2,
    "warped": 1,
}

# What each op writes into them at magnitude 10; "warped" marks the ops that sample the image anew.
# Brightness, contrast, colour and sharpness are all ``x + a (x - blank)``; "scale" is the part that
# multiplies x. Coordinates run from -1 to 1, so a move by 0.3 of the side is 0.6, and the pixels
# come from where the image moves away.
_FULL: dict[str, dict[str, tuple[float, ...]]] = {
    "identity": {},
    "autocontrast": {"autocontrast": (1.0,)},
    "brightness": {"scale": (0.9,)},
    "contrast": {"scale": (0.9,), "contrast": (0.9,)},
    "sharpness": {"sharpness": (0.9,)},
    "posterize": {"posterize": (4.0,)},
    "solarize": {"solarize": (1.0,)},
    "rotate": {"rotate": (radians(30),), "warped": (1.0,)},
    "shear_x": {"shear": (0.3, 0.0), "warped": (1.0,)},
    "shear_y": {"shear": (0.0, 0.3), "warped": (1.0,)},
    "translate_x": {"move": (-0.6, 0.0), "warped": (1.0,)},
    "translate_y": {"move": (0.0, -0.6), "warped": (1.0,)},
    "colour": {"scale": (0.9,), "colour": (0.9,)},
}
_UNSIGNED = ("autocontrast", "posterize", "solarize", "warped")
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601 luma, as in PIL


@dataclass(frozen=True)
class Settings(Op):
    """Apply n ops, drawn with replacement, at one magnitude (Cubuk et al. 2020, arXiv 1909.13719).

    Magnitude 10 means: enhancement factors 1 +- 0.9, 4 of 8 bits, solarising every pixel, full
    autocontrast, rotation by 30 degrees, shear by 0.3, moves by 0.3 of the side; 0 leaves the image
    as it is, for every op, and all between is in proportion. Signs are drawn. Uncovered pixels are
    black. Between pixels it interpolates: on 8x8 images the nearest pixel would hide most
    magnitudes.
    """

    n: int = field(default=2, metadata={"doc": "ops per image", "low": 1, "high": 16})
    m: float | None = field(
        default=None,
        metadata={
            "doc": "fixed magnitude, 0 to 10; null: the schedule `magnitude`",
            "low": 0.0,
            "high": 10.0,
        },
    )

    @property
    def columns(self) -> int:
        """Return n: each number chooses an op and its sign."""
        return self.n

    @property
    def needs_magnitude(self) -> bool:
        """Return whether no magnitude is fixed."""
        return self.m is None

    def stage(self, images: Images) -> Stage:
        """Return the rounds as one stage."""
        return RandomOps(self, images.shape, images.max_value)


def choices_for(channels: int) -> tuple[str, ...]:
    """Return the names of the ops that RandAugment chooses from on images of so many channels."""
    return (*OPS, "colour") if channels == 3 else OPS


class RandomOps(Stage):
    """RandAugment: each round gives every image one op, without a branch on the device.

    An op is a row of coefficients; most photometric ops share one affine map per channel, and the
    geometric ops one warp. Values stay in 0..max_value as floats; one grey level of PIL's 256 is
    ``(max_value + 1) / 256`` here.
    """

    table: Tensor
    fixed: Tensor | None
    x: Tensor
    y: Tensor
    grey: Tensor | None

    def __init__(self, op: Settings, shape: Shape, max_value: int) -> None:
        self.rounds = op.n
        self.largest, self.colour = float(max_value), shape[0] == 3
        self.level = (max_value + 1) / 256
        _, height, width = shape
        self.ratio = height / width
        self.small = min(height, width) < 3
        self.constant("table", _table(choices_for(shape[0]), self.ratio))
        self.constant("fixed", None if op.m is None else torch.tensor(op.m))
        # Pixel centres, -1 and 1 being the outer edges of the image.
        self.constant("x", (torch.arange(width) * 2 + 1) / width - 1)
        self.constant("y", ((torch.arange(height) * 2 + 1) / height - 1)[:, None])
        self.constant("grey", torch.tensor(_GREY)[:, None, None] if self.colour else None)

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return float32 images in 0..max_value, not normalised."""
        x = x.float()
        work = torch.empty_like(x)
        magnitude = magnitude if self.fixed is None else self.fixed
        assert magnitude is not None  # The pipeline has checked it.
        for part in self._rounds(u, magnitude.clamp(0, 10) / 10):
            x = self._levels(self._tone(x, part, work), part, work)
            warped = F.grid_sample(x, part["grid"].permute(0, 2, 3, 1), align_corners=False)
            x.lerp_(warped, part["warped"])
        return x

    def _rounds(self, u: Tensor, strength: Tensor) -> list[dict[str, Tensor]]:
        """Return what each round does, all that does not depend on the images.

        Every value is [B, columns, 1, 1] but the grid, [B, 2, H, W]. All rounds are computed at
        once: on small images the number of calls is what costs.
        """
        rows = (u.t() * len(self.table)).long().flatten()
        if strength.ndim:
            strength = strength.repeat(self.rounds)[:, None, None, None]
        amounts = self.table.index_select(0, rows).mul_(strength)
        amounts = amounts.view(self.rounds, len(u), *amounts.shape[1:])
        parts = torch.split(amounts, list(_PARTS.values()), 2)
        part = dict(zip(_PARTS, parts, strict=True))
        part["grid"] = self._grid(part.pop("rotate"), part.pop("shear"), part.pop("move"))
        part["threshold"] = torch.rsub(part.pop("solarize"), 1).mul_(self.largest + 1)
        bits = part.pop("posterize").round()
        part["step"] = bits.exp2().mul_(self.level)
        part["cut"] = (bits > 0).float()
        part["warped"] = (part["warped"] > 0).float()
        by_round = zip(*(value.unbind() for value in part.values()), strict=True)
        return [dict(zip(part, values, strict=True)) for values in by_round]

    def _grid(self, angle: Tensor, shear: Tensor, move: Tensor) -> Tensor:
        """Return where each pixel comes from, [rounds, B, 2, H, W], -1 and 1 being the edges.

        The pixel at (x, y) comes from ``to_x * x + to_y * y + centre``, each a pair (x, y).
        Rotation is about the centre and shear about the top left corner, as in PIL.
        """
        cos, sin = angle.cos(), angle.sin()
        across, down = torch.split(shear, 1, 2)
        to_x = torch.cat((cos, torch.add(down, sin, alpha=1 / self.ratio)), 2)
        to_y = torch.cat((torch.sub(across, sin, alpha=self.ratio), cos), 2)
        return to_x * self.x + (to_y * self.y).add_(shear + move)

    def _tone(self, x: Tensor, part: dict[str, Tensor], work: Tensor) -> Tensor:
        """Apply all but the geometric ops and ``_levels`` to ``x``, in place.

        Where none of them was drawn, ``x`` stays the same to the last bit. ``work``, as large as
        ``x``, is overwritten: fresh memory for every step would cost more than the arithmetic.
        """
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        mean = x.mean((2, 3), keepdim=True)
        stretch = part["autocontrast"] * (high > low)
        gain = self.largest / (high - low).clamp_(min=self.level)
        shade = None
        if self.grey is not None:
            mean = (mean * self.grey).sum(1, keepdim=True)
            shade = _shade(x)
        detail = None if self.small else _detail(x, work)
        # x + stretch ((x - low) gain - x) + a (x - mean)
        lift = (stretch * low * gain).addcmul_(part["contrast"], mean)
        x.mul_((gain - 1).mul_(stretch).add_(part["scale"]).add_(1)).sub_(lift)
        if shade is not None:
            x.addcmul_(part["colour"], shade, value=-1)
        if detail is not None:
            x[:, :, 1:-1, 1:-1].addcmul_(part["sharpness"], detail)
        return x.clamp_(0, self.largest)

    def _levels(self, x: Tensor, part: dict[str, Tensor], work: Tensor) -> Tensor:
        """Solarise and posterise ``x``, in place."""
        solarise(x, part["threshold"], self.largest, work)
        lost = torch.div(x, part["step"], out=work).floor_().mul_(part["step"]).sub_(x)
        return x.addcmul_(part["cut"], lost)


def _table(ops: Sequence[str], ratio: float) -> Tensor:
    """Return coefficients [2 x ops, columns, 1, 1]: two rows per op, one for each sign.

    ``ratio`` is height / width: shear is given in pixels per pixel, coordinates in half sides.
    """
    to_sides = {"shear": torch.tensor([ratio, 1 / ratio])}
    rows = []
    for name in ops:
        for sign in (1.0, -1.0):
            parts = []
            for part, width in _PARTS.items():
                full = torch.tensor(_FULL[name].get(part, (0.0,) * width))
                parts.append(full * (1 if part in _UNSIGNED else sign) * to_sides.get(part, 1))
            rows.append(torch.cat(parts))
    return torch.stack(rows)[:, :, None, None]


def _shade(x: Tensor) -> Tensor:
    """Return the luma [B, 1, H, W] of colour images."""
    red, green, blue = torch.split(x, 1, 1)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


def _detail(x: Tensor, work: Tensor) -> Tensor:
    """Return each inner pixel less its smoothed value, [B, C, H - 2, W - 2].

    The smoothing is PIL's: weight 5 for the pixel, 1 for each of its eight neighbours, over 13.
    """
    inner = x[:, :, 1:-1]
    rows = torch.add(x[:, :, :-2], inner, out=work[:, :, 1:-1]).add_(x[:, :, 2:])
    box = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    return box.mul_(-1 / 13).add_(inner[..., 1:-1], alpha=9 / 13)
