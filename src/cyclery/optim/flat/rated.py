"""Learning rates of their own for some parameters, whatever the optimiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from cyclery.optim.flat.optimiser import Optimiser, Row
from cyclery.optim.flat.parameters import Vectors
from cyclery.optim.flat.wrapped import Wrapped, by_entry


class Rated(Wrapped):
    """A rule whose change of each parameter is multiplied by a factor.

    Every rule changes the parameters in proportion to ``lr``, its decay included, and keeps a state
    that does not depend on ``lr`` or, as the momentum of SimCLR's LARS, is proportional to it. So
    this is what a learning rate times the factor computes, but for rounding; a factor of 1 changes
    no bit.
    """

    def __init__(self, rule: Optimiser, flat: Vectors, rates: Mapping[str, float]) -> None:
        super().__init__(rule)
        self._data, self._factors = flat.data, by_entry(flat, rates, 1.0)
        self._before = torch.empty_like(flat.data)

    def step(self, row: Row) -> None:
        """Update the parameters in place."""
        self._before.copy_(self._data)
        self._rule.step(row)
        torch.lerp(self._before, self._data, self._factors, out=self._data)
