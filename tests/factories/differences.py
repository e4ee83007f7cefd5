"""Derivatives by central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def by_differences(
    function: Callable[[], Tensor], parameters: Sequence[Tensor], step: float = 1e-5
) -> Tensor:
    """Return the derivative [..., P] of a function of float64 parameters."""
    columns = []
    for entry in (parameter.detach().view(-1) for parameter in parameters):
        for at, value in enumerate(entry.tolist()):
            ends = []
            for moved in (value + step, value - step):
                entry[at] = moved
                ends.append(function().detach())
            entry[at] = value
            columns.append((ends[0] - ends[1]) / (2 * step))
    return torch.stack(columns, -1)
