"""Bounds on single entries of the gradients of some parameters, whatever the optimiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from cyclery.optim.flat.optimiser import Optimiser, Row
from cyclery.optim.flat.parameters import Vectors
from cyclery.optim.flat.wrapped import Wrapped, by_entry


class Bounded(Wrapped):
    """A rule that sees every entry g of a gradient as min(max(g, -bound), bound).

    As `torch.nn.utils.clip_grad_value_` of these parameters; others have no bound. What decays is
    added afterwards.
    """

    def __init__(self, rule: Optimiser, flat: Vectors, bounds: Mapping[str, float]) -> None:
        super().__init__(rule)
        self._grad, self._high = flat.grad, by_entry(flat, bounds, torch.inf)
        self._low = -self._high

    def step(self, row: Row) -> None:
        """Update the parameters in place."""
        self._grad.clamp_(self._low, self._high)
        self._rule.step(row)
