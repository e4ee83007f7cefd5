"""Samplers: in which order an epoch takes the samples of a pool.

Orders are drawn on the CPU at the start of an epoch, for all its updates, so a captured step reads
them and draws none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.methods import Stream

# A Poisson draw is above its mean by more than so many deviations once in 10^15 updates.
DEVIATIONS = 8


class Sampler(ABC):
    """Draws the order of an epoch. ``times``: its samples for each one of the batch.

    ``labels`` [N] are those of all samples, by their ids, where it goes by any.
    """

    masks = False
    labels: Tensor | None = None

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def size(self, batch: int, pool: int) -> int:
        """Return how many positions an update takes."""
        return batch * self.times

    def length(self, samples: int, batch: int, pool: int) -> int:
        """Return how many positions an epoch of ``samples`` of the first stream has."""
        return samples * self.times

    @abstractmethod
    def draw(
        self, ids: Tensor, samples: int, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return an epoch's ids [L], and a mask [L] or nothing [0]."""


class Shuffled(Sampler):
    """One shuffled pass after another; an epoch begins a new one.

    The order does not depend on the batch size, so arms that differ in it see the same samples.
    """

    def draw(
        self, ids: Tensor, samples: int, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the first samples of as many passes as they take."""
        length = self.length(samples, batch, len(ids))
        passes = -(-length // len(ids))
        drawn = [torch.randperm(len(ids), generator=generator) for _ in range(passes)]
        return ids[torch.cat(drawn)[:length]], torch.empty(0)


class Balanced(Sampler):
    """Each class as likely, with replacement; or of a few classes at each update as many samples.

    With ``classes`` an update has so many different ones, and of each as many samples, different
    ones where the class has so many.
    """

    def __init__(self, labels: Tensor, times: int = 1, classes: int | None = None) -> None:
        super().__init__(times)
        self.labels: Tensor = labels.cpu()
        self._classes = classes

    def draw(
        self, ids: Tensor, samples: int, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the samples of an epoch, those of one class after another in an update."""
        labels = self.labels[ids]
        pools = [ids[labels == label] for label in labels.unique()]
        if self._classes is not None:
            if len(pools) < self._classes:
                raise UserError(
                    f"streams: a balanced stream takes samples of {self._classes} classes at each "
                    f"update, and its pool has {len(pools)}; take fewer, or let the pool have more."
                )
            updates, each = samples // batch, self.size(batch, len(ids)) // self._classes
            rows = [
                _some(pools[chosen], each, generator)
                for _ in range(updates)
                for chosen in torch.randperm(len(pools), generator=generator)[: self._classes]
            ]
            return torch.cat(rows), torch.empty(0)
        length = self.length(samples, batch, len(ids))
        chosen = torch.randint(len(pools), (length,), generator=generator)
        at = torch.rand(length, generator=generator, dtype=torch.float64)
        counts = torch.tensor([len(pool) for pool in pools])
        starts = counts.cumsum(0) - counts
        within = (at * counts[chosen]).long()
        return torch.cat(pools)[starts[chosen] + within], torch.empty(0)


class Poisson(Sampler):
    """Each sample with probability batch / N at every update, independently of the others.

    An update has room for more than the expected size; what is left is filled with a sample that
    the mask marks with 0.
    """

    masks = True

    def size(self, batch: int, pool: int) -> int:
        """Return the room of an update."""
        expected = batch * self.times
        spread = math.sqrt(expected * max(0.0, 1 - expected / max(pool, 1)))
        return min(max(pool, 1), expected + math.ceil(DEVIATIONS * spread + DEVIATIONS))

    def length(self, samples: int, batch: int, pool: int) -> int:
        """Return the room of all updates of an epoch."""
        return samples // batch * self.size(batch, pool)

    def draw(
        self, ids: Tensor, samples: int, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the samples of an epoch and what they fill of its room."""
        room, rate = self.size(batch, len(ids)), batch * self.times / len(ids)
        updates = samples // batch
        rows = ids[:1].expand(updates, room).clone()
        mask = torch.zeros(updates, room)
        for update in range(updates):
            # Double precision: a rate below 2^-24 would never be drawn in single.
            drawn = torch.rand(len(ids), generator=generator, dtype=torch.float64) < rate
            found = ids[drawn]
            if len(found) > room:
                raise UserError(
                    f"a Poisson draw has {len(found)} samples where {room} fit, which is next to "
                    "impossible; train with another seed."
                )
            rows[update, : len(found)] = found
            mask[update, : len(found)] = 1
        return rows.view(-1), mask.view(-1)


def sampler(stream: Stream, labels: Tensor, mu: int) -> Sampler:
    """Return the sampler that a method's stream asks for."""
    times = stream.size(1, mu)
    if stream.sampler == "balanced":
        return Balanced(labels, times, stream.classes)
    return Poisson(times) if stream.sampler == "poisson" else Shuffled(times)


def _some(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return so many of a pool's samples, none twice as long as there are others."""
    passes: Sequence[Tensor] = [
        torch.randperm(len(pool), generator=generator) for _ in range(-(-count // len(pool)))
    ]
    return pool[torch.cat(list(passes))[:count]]
