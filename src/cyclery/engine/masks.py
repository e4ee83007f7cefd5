"""What networks draw in a step where runs are stacked: each run has a generator of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cyclery.engine.stackable import Stackable
from cyclery.models.layers import Noise


class _Mask(NamedTuple):
    """Zeros and ones [K, ...] that the runs' generators of a name draw."""

    generator: str
    share: float
    values: Tensor


class Masks:
    """The masks of one step of K runs, in the order in which it takes them.

    They are found in a step that is made ``looking``. ``draw`` fills them before every other.
    """

    def __init__(self, runs: Sequence[Stackable]) -> None:
        self._runs = runs
        self._found: list[_Mask] = []
        self._left: Iterator[Tensor] = iter(())

    @property
    def values(self) -> list[Tensor]:
        """The masks, [K, ...] each."""
        return [mask.values for mask in self._found]

    def draw(self) -> None:
        """Draw the masks of the next update."""
        for mask in self._found:
            for values, run in zip(mask.values, self._runs, strict=True):
                values.bernoulli_(mask.share, generator=run.generators[mask.generator])

    def give(self, masks: Sequence[Tensor]) -> None:
        """Have these for the next step: those of one run."""
        self._left = iter(masks)

    @contextmanager
    def taken(self, networks: Iterable[nn.Module], looking: bool = False) -> Iterator[None]:
        """Inside, networks take what was given; or, when ``looking``, ones, and are watched."""
        names = {id(drawn): name for name, drawn in self._runs[0].generators.items()}

        def drawn(module: Noise, like: Tensor, share: float) -> Tensor:
            if not looking:
                return next(self._left).clone()
            values = torch.ones(len(self._runs), *like.shape)
            self._found.append(_Mask(names[id(module.generator)], share, values))
            return torch.ones_like(like)

        noisy = [m for net in networks for m in net.modules() if isinstance(m, Noise)]
        try:
            for module in noisy:
                module.drawn = drawn
            yield
        finally:
            for module in noisy:
                module.drawn = None
