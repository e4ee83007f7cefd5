"""Solarising, for each op that does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclery.common.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def solarise(x: Tensor, threshold: Tensor, largest: float, work: Tensor) -> Tensor:
    """Invert, in place, the values of float ``x`` from ``threshold`` on; ``work`` is overwritten.

    A mask is multiplied in, not selected with ``torch.where``, which is several times slower on a
    CPU.
    """
    over = torch.ge(x, threshold, out=work)
    return x.addcmul_(over, x, value=-2).add_(over, alpha=largest)
