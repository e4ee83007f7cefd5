"""Weighted sums of pixels along one side of an image: what blurs and resizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def summed(x: Tensor, index: Tensor, weight: Tensor, side: int) -> Tensor:
    """Return, along ``side`` (2: rows, 3: columns), the weighted sum of pixels of ``x``.

    Place i of the result is the sum over t of ``weight[b, t, i]`` times the pixel at
    ``index[b, t, i]``; both are [B or 1, taps, H or W]. Each image is summed alone and in this
    order, so the result has the same bits in any batch.
    """
    along = (slice(None), None, slice(None), None) if side == 2 else (slice(None), None, None)
    total = None
    for place, share in zip(index.unbind(1), weight.unbind(1), strict=True):
        taken = x.gather(side, place[along].expand_as(x)).mul_(share[along])
        total = taken if total is None else total.add_(taken)
    assert total is not None  # there is a tap
    return total
