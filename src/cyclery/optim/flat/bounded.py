"""Bounds on single entries of the gradients of some parameters, whatever the optimiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cyclery.optim.flat.optimiser import Optimiser, Part, Row
from cyclery.optim.flat.parameters import Vectors


class Bounded(Optimiser):
    """A rule that sees every entry g of a gradient as min(max(g, -bound), bound).

    As `torch.nn.utils.clip_grad_value_` of these parameters; others have no bound. What decays is
    added afterwards.
    """

    def __init__(self, rule: Optimiser, flat: Vectors, bounds: Mapping[str, float]) -> None:
        self._rule, self._grad = rule, flat.grad
        self._high = torch.full_like(flat.data, torch.inf)
        views = flat.views(self._high)
        for name, bound in bounds.items():
            views[name].fill_(bound)
        self._low = -self._high

    def step(self, row: Row) -> None:
        """Update the parameters in place."""
        self._grad.clamp_(self._low, self._high)
        self._rule.step(row)

    def state(self) -> dict[str, Tensor]:
        """Return the live state of the rule."""
        return self._rule.state()

    def _update(self, part: Part, row: Row, scalars: tuple[Tensor, ...]) -> None:
        self._rule._update(part, row, scalars)
