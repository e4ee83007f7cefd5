"""Colour jitter: brightness, contrast, saturation and hue in a random order (SimCLR, BYOL).

T. Chen et al., SimCLR (ICML 2020, arXiv 2002.05709), appendix A; J.-B. Grill et al., BYOL (NeurIPS
2020, arXiv 2006.07733), appendix B. Both leave the definitions to their codes, which differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING, Literal

from cyclery.augment import Images, Op, Stage
from cyclery.augment._colour import grey, recoloured
from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor

_STRENGTHS = ("brightness", "contrast", "saturation", "hue")
_ON_GREY = _STRENGTHS[:2]

# What a change does to an image x, and the values that leave it as it is: in a blend,
# ``factor x + shift + mean (the mean) + grey (its grey)``; where ``hsv``, in hue and saturation.
_PARTS = {
    "factor": 1.0, "shift": 0.0, "mean": 0.0, "grey": 0.0,
    "turn": 0.0, "saturation": 1.0, "hsv": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Settings(Op):
    """Change brightness, contrast, saturation and hue in a random order, each once.

    Each is drawn per image: factors from 1 - a to 1 + a for a strength a, the turn of the hue from
    -a to a of the circle. Values are cut to the image's range after each. Grey images have
    brightness and contrast only.

    ``torchvision``: brightness is a factor, contrast goes about the mean of the grey image,
    saturation is the distance from the grey image. ``simclr``, the published code's newer form:
    contrast goes about the mean of each channel, saturation is that of HSV. ``byol``, also SimCLR's
    as the paper had it: the same, but brightness adds -a to a of the largest value.
    """

    brightness: float = field(default=0.4, metadata={"doc": "strength", "low": 0.0, "high": 1.0})
    contrast: float = field(default=0.4, metadata={"doc": "strength", "low": 0.0, "high": 1.0})
    saturation: float = field(default=0.4, metadata={"doc": "strength", "low": 0.0, "high": 1.0})
    hue: float = field(
        default=0.1, metadata={"doc": "greatest turn, in circles", "low": 0.0, "high": 0.5}
    )
    p: float = field(default=0.8, metadata={"doc": "probability", "above": 0.0, "high": 1.0})
    form: Literal["torchvision", "simclr", "byol"] = field(
        default="torchvision", metadata={"doc": "whose definitions"}
    )

    @property
    def columns(self) -> int:
        """Return 6: presence, order, brightness, contrast, saturation, hue."""
        return 6

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where nothing would change, or images are of other channels."""
        channels = shape[0] if shape else 3
        if channels not in (1, 3):
            raise UserError(f"{where}: images must have 1 or 3 channels (found {channels}).")
        if not self.active(channels):
            names = ", ".join(_ON_GREY if channels == 1 else _STRENGTHS)
            raise UserError(f"{where}: one of {names} must be above 0 (found none).")

    def active(self, channels: int) -> tuple[str, ...]:
        """Return the changes that are made to images of so many channels."""
        names = _ON_GREY if channels == 1 else _STRENGTHS
        return tuple(name for name in names if getattr(self, name) > 0)

    def stage(self, images: Images) -> Stage:
        """Return what changes the colours."""
        return Jitter(self, images)


class Jitter(Stage):
    """One round for each change: in a round every image has the one that its order puts there."""

    orders: Tensor
    first: Tensor
    slope: Tensor
    neutral: Tensor
    sixths: Tensor

    def __init__(self, op: Settings, images: Images) -> None:
        self.p, self.largest, self.channels = op.p, float(images.max_value), images.shape[0]
        self.names = op.active(self.channels)
        self.by_channel = op.form != "torchvision"
        rows = [_coefficients(name, op, self.largest) for name in self.names]
        first, slope = torch.tensor(rows).unbind(2)
        self.recolours = bool(first[:, list(_PARTS).index("hsv")].any())
        self.constant("first", first)
        self.constant("slope", slope)
        self.constant("neutral", torch.tensor(list(_PARTS.values())))
        self.constant("orders", torch.tensor(list(permutations(range(len(self.names))))))
        self.constant("sixths", torch.tensor([5.0, 3.0, 1.0])[:, None, None])

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return float32 images in 0..max_value."""
        x = x.float()
        for part in self._rounds(u):
            made = self._blended(x, part)
            if self.recolours:
                other = recoloured(x, part["turn"], part["saturation"], self.sixths)
                made = torch.where(part["hsv"] > 0, other, made)
            x = made.clamp_(0, self.largest)
        return x

    def _rounds(self, u: Tensor) -> list[dict[str, Tensor]]:
        """Return the coefficients of each round, each [B, 1, 1, 1]."""
        order = self.orders.index_select(0, (u[:, 1] * len(self.orders)).long())
        columns = [2 + _STRENGTHS.index(name) for name in self.names]
        drawn = torch.stack([u[:, column] for column in columns], 1)[:, :, None]
        parts = torch.addcmul(self.first, self.slope, drawn)
        parts = torch.where(u[:, :1, None] < self.p, parts, self.neutral)
        parts = parts.gather(1, order[:, :, None].expand_as(parts))[..., None, None, None]
        return [dict(zip(_PARTS, each.unbind(1), strict=True)) for each in parts.unbind(1)]

    def _blended(self, x: Tensor, part: dict[str, Tensor]) -> Tensor:
        """Return ``x`` brighter or darker, nearer to its mean or further from it, or its grey."""
        shade = x if self.channels == 1 else grey(x)
        mean = (x if self.by_channel else shade).mean((2, 3), keepdim=True)
        base = torch.addcmul(part["shift"], mean, part["mean"])
        if self.channels == 3:
            base = torch.addcmul(base, shade, part["grey"])
        return torch.addcmul(base, x, part["factor"])


def _coefficients(name: str, op: Settings, largest: float) -> list[tuple[float, float]]:
    """Return each of ``_PARTS`` for a change: where its uniform number is 0, and what 1 adds."""
    strength = getattr(op, name)
    factor = (1 - strength, 2 * strength)
    away = (strength, -2 * strength)  # what a factor leaves for the rest
    always = (1.0, 0.0)
    turn, shift = (-6 * strength, 12 * strength), (-largest * strength, 2 * largest * strength)
    brightness = {"shift": shift} if op.form == "byol" else {"factor": factor}
    from_grey = {"factor": factor, "grey": away}
    in_hsv = {"saturation": factor, "hsv": always}
    written = {
        "brightness": brightness,
        "contrast": {"factor": factor, "mean": away},
        "saturation": from_grey if op.form == "torchvision" else in_hsv,
        "hue": {"turn": turn, "hsv": always},
    }[name]
    return [written.get(part, (value, 0.0)) for part, value in _PARTS.items()]
