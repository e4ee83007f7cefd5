"""Many random values from two uniform numbers an image, on the device."""

from __future__ import annotations

from math import tau
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_BITS = 24  # of a uniform float32
_STEP, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


def normal(u: Tensor, counter: Tensor) -> Tensor:
    """Return a standard normal number for each of ``counter`` [N], float32 [B, N].

    ``u`` [B, 2] in [0, 1) chooses the sequence. The bits are those of splitmix64 (Steele et al.
    2014, Fast splittable pseudorandom number generators) at place ``counter`` of a sequence whose
    start is mixed of the two numbers; Box and Muller's transform makes them normal.
    """
    high, low = (u.double() * 2**_BITS).long().unbind(1)
    start = _mixed((high << _BITS | low)[:, None])
    bits = _mixed(start + counter * _STEP)
    radius = (_after(bits, 64 - _BITS).float() + 1).mul_(2.0**-_BITS)  # in (0, 1]
    angle = (bits & (2**_BITS - 1)).float().mul_(tau * 2.0**-_BITS)
    return radius.log_().mul_(-2).sqrt_().mul_(angle.cos_())


def _mixed(bits: Tensor) -> Tensor:
    """Return 64 bits in which each depends on all that are given."""
    bits = (bits ^ _after(bits, 30)) * _FIRST
    bits = (bits ^ _after(bits, 27)) * _SECOND
    return bits ^ _after(bits, 31)


def _after(bits: Tensor, count: int) -> Tensor:
    """Return ``bits`` moved right by ``count``, zeros coming in, though int64 has a sign."""
    return (bits >> count) & (2 ** (64 - count) - 1)
