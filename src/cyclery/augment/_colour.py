"""Colours of float images [B, 3, H, W]: their grey, and hue and saturation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.common.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""The grey of a colour (ITU-R 601 to four digits), as in torchvision, SimCLR's and BYOL's code."""


def grey(x: Tensor) -> Tensor:
    """Return the grey [B, 1, H, W] of ``x``."""
    red, green, blue = x.split(1, 1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def recoloured(x: Tensor, turn: Tensor, saturation: Tensor, sixths: Tensor) -> Tensor:
    """Return ``x`` with its hue turned and its saturation multiplied, as in HSV.

    ``turn`` is in sixths of the circle of hues, ``saturation`` a factor that leaves a saturation of
    at most 1; ``sixths`` [3, 1, 1] holds 5, 3, 1, where red, green and blue stand on that circle.
    """
    red, green, blue = x.split(1, 1)
    most = x.amax(1, keepdim=True)
    chroma = most - x.amin(1, keepdim=True)
    # A grey has no hue: any will do, for its chroma stays 0.
    span = chroma.masked_fill(chroma == 0, 1)
    hue = torch.where(
        red == most,
        (green - blue) / span,
        torch.where(green == most, (blue - red) / span + 2, (red - green) / span + 4),
    )
    place = (hue.add_(turn) + sixths).remainder_(6)
    share = torch.minimum(place, 4 - place).clamp_(0, 1)
    return most - share.mul_(torch.minimum(chroma * saturation, most))


def check_colour(channels: int | None, where: str) -> None:
    """Raise a UserError unless images have three channels."""
    if channels not in (None, 3):
        raise UserError(f"{where}: images must have 3 channels (found {channels}).")
