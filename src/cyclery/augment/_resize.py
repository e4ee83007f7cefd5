"""PIL's resizing of the middle of an image to the size of the whole, as matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
ONE = 1 << 22
"""What the weights of a pixel add up to: PIL's fixed point for images of bytes."""


def _lanczos(x: Array) -> Array:
    return np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0)


def _bicubic(x: Array) -> Array:
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _bilinear(x: Array) -> Array:
    return np.maximum(1 - np.abs(x), 0)


def _box(x: Array) -> Array:
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def _hamming(x: Array) -> Array:
    return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)


# By the order of google-research/fixmatch; None is the nearest pixel.
FILTERS: dict[str, tuple[float, Callable[[Array], Array]] | None] = {
    "lanczos": (3.0, _lanczos),
    "bicubic": (2.0, _bicubic),
    "bilinear": (1.0, _bilinear),
    "box": (0.5, _box),
    "hamming": (1.0, _hamming),
    "nearest": None,
}


def resizing(side: int) -> Array:
    """Return the weights of pixels [margins x filters, side, side], whole numbers in float64.

    Row i of a matrix makes pixel i of the result. Margins are 0 to a quarter of the side, cut off
    at both ends before the rest is resized; with none the image stays as it is.
    """
    found = [np.stack([np.eye(side) * ONE] * len(FILTERS))]
    for margin in range(1, round(side / 4) + 1):
        inner = side - 2 * margin
        each = np.zeros((len(FILTERS), side, side))
        for index, kind in enumerate(FILTERS.values()):
            each[index, :, margin : side - margin] = _weights(inner, side, kind)
        found.append(each)
    return np.concatenate(found)


def _weights(inner: int, side: int, kind: tuple[float, Callable[[Array], Array]] | None) -> Array:
    """Return the weights of ``inner`` pixels in each of ``side`` larger ones, [side, inner]."""
    pixels, scale = np.arange(inner), inner / side
    if kind is None:
        # Step by step, as PIL goes: where a step ends on a pixel's edge, rounding decides.
        steps = np.cumsum([scale / 2, *[scale] * (side - 1)])
        return np.asarray((pixels == np.floor(steps)[:, None]) * ONE, dtype=float)
    centre = (np.arange(side)[:, None] + 0.5) * scale
    support, weigh = kind
    low = np.maximum(np.trunc(centre - support + 0.5), 0)
    high = np.minimum(np.trunc(centre + support + 0.5), inner)
    raw = weigh(pixels - centre + 0.5) * ((pixels >= low) & (pixels < high))
    share = raw / raw.sum(1, keepdims=True)
    return np.asarray(np.trunc(share * ONE + np.copysign(0.5, share)))
