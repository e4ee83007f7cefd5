"""A rule inside another one, which treats some parameters otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cyclery.optim.flat.optimiser import Optimiser, Part, Row
from cyclery.optim.flat.parameters import Vectors


class Wrapped(Optimiser):
    """A rule whose state is that of the rule inside it; each kind adds its own `step`."""

    def __init__(self, rule: Optimiser) -> None:
        self._rule = rule

    def state(self) -> dict[str, Tensor]:
        """Return the live state of the rule."""
        return self._rule.state()

    def _update(self, part: Part, row: Row, scalars: tuple[Tensor, ...]) -> None:
        self._rule._update(part, row, scalars)


def by_entry(flat: Vectors, numbers: Mapping[str, float], others: float) -> Tensor:
    """Return a vector like the parameters: the number of each by its name, and of the others."""
    found = torch.full_like(flat.data, others)
    views = flat.views(found)
    for name, number in numbers.items():
        views[name].fill_(number)
    return found
