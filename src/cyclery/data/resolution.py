"""Images at another resolution: reduced to a stored side, and enlarged to the network's.

Both are the linear filter that torch's `interpolate` has with ``mode="bilinear"``, ``antialias``
on and ``align_corners`` off: a triangle as wide as the larger of two pixels, which averages areas
where it reduces and is plain bilinear interpolation where it enlarges. Weights are whole numbers
here and sums are exact, so that every device gives the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclery.common.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Images at once: a pixel takes 8 bytes on the way.
CHUNK = 2048


def resized(images: Tensor, stored: int, input: int) -> Tensor:
    """Return images with the detail of a stored side, at the side that a network sees.

    Args:
        images: uint8 [N, C, S, S].
        stored: Side in pixels to which they are reduced, at most S; rounded to uint8 there.
        input: Side in pixels to which they are then enlarged, at least `stored`.

    Returns:
        uint8 [N, C, input, input], on the device of the images; these themselves where both sides
        are theirs.
    """
    return resized_to(resized_to(images, stored), input)


def resized_to(images: Tensor, side: int) -> Tensor:
    """Return images uint8 [N, C, S, S] at another side, themselves where it is theirs."""
    if images.shape[-1] == side:
        return images
    weights = _weights(images.shape[-1], side, images.device)
    total = weights.sum(1).long()
    area = total[:, None] * total
    out = images.new_empty((*images.shape[:2], side, side))
    for start in range(0, len(images), CHUNK):
        chunk = slice(start, start + CHUNK)
        # Whole numbers below 2^53, which doubles hold exactly in whatever order they are added.
        sums = (weights @ images[chunk].double() @ weights.T).long()
        out[chunk] = torch.div(2 * sums + area, 2 * area, rounding_mode="floor").to(out.dtype)
    return out


def _weights(of: int, to: int, device: torch.device) -> Tensor:
    """Return what each pixel of a side weighs in each of another, whole numbers [to, of]."""
    # Distances of the centres, in units of 1 / (2 of to) of the side.
    target = (2 * torch.arange(to, device=device) + 1) * of
    source = (2 * torch.arange(of, device=device) + 1) * to
    return (2 * max(of, to) - (target[:, None] - source).abs()).clamp(min=0).double()
