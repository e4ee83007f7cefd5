"""Streams of training samples on the device, paired across arms by the seed.

The order, and each number that augmentation takes, have a generator of their own, seeded from the
seed and the purpose and never from the arm. The random numbers of an epoch are drawn at its start,
for every position: so two arms see the same samples in the same weak views whatever their batch
sizes are, whatever else their methods draw and whatever augmentation they have besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from cyclery.augment import Pipeline
from cyclery.records.record import RunSettings


@dataclass(frozen=True)
class Data:
    """A prepared dataset on a device: images uint8 [N, C, H, W], labels int64 [N]."""

    images: Tensor
    labels: Tensor
    manifest: dict[str, Any]

    def to(self, device: torch.device) -> Data:
        """Return the dataset on ``device``."""
        return Data(self.images.to(device), self.labels.to(device), self.manifest)


@dataclass(frozen=True)
class Samples:
    """A batch of a stream: views float [B, C, H, W], y int64 [B], ids int64 [B].

    The labels of an unlabelled stream are for measuring only, never for training.
    """

    views: tuple[Tensor, ...]
    y: Tensor
    ids: Tensor

    @property
    def x(self) -> Tensor:
        """The first view."""
        return self.views[0]


@dataclass(frozen=True)
class Batch(Samples):
    """The labelled samples of an update, with its unlabelled ones where the method takes any."""

    unlabelled: Samples | None = None


def origin(settings: RunSettings) -> str:
    """Return what the random numbers of a run come from: its seed, and its draw where it has one.

    The split comes from the seed alone.
    """
    return f"{settings['seed']}@{settings['draw']}" if settings["draw"] else f"{settings['seed']}"


def derive(origin: str, purpose: str) -> int:
    """Return the 63-bit seed of one purpose of one run."""
    return int.from_bytes(sha256(f"{origin}/{purpose}".encode()).digest()[:8], "big") >> 1


def generator(origin: str, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return an independent generator for ``purpose``."""
    return torch.Generator(device).manual_seed(derive(origin, purpose))


class Stream:
    """Samples ``ids`` in shuffled passes, ``length`` of them an epoch, with uniform numbers each.

    ``numbers`` names the purposes of the numbers. An epoch begins a new pass. ``take`` advances a
    cursor on the device, so a captured step can be replayed; ``largest`` is the most it is asked
    for.
    """

    def __init__(
        self,
        name: str,
        ids: Tensor,
        numbers: Sequence[str],
        *,
        length: int,
        largest: int,
        origin: str,
    ) -> None:
        device = ids.device
        self._ids = ids.cpu()
        # The order is drawn on the CPU, where it is the same for every device.
        self._generators = {"order": generator(origin, f"{name}/order")}
        self._generators |= {n: generator(origin, f"{name}/{n}", device) for n in numbers}
        # Zeros, for a step may be tried before the first epoch begins.
        self._order = torch.zeros(length, dtype=torch.int64, device=device)
        self._noise = torch.zeros(length, len(numbers), device=device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self._offsets = torch.arange(largest, device=device)

    def begin_epoch(self) -> None:
        """Draw the order and the numbers of an epoch; not part of a captured step."""
        order, *numbers = self._generators.values()
        passes = -(-len(self._order) // len(self._ids))
        drawn = [torch.randperm(len(self._ids), generator=order) for _ in range(passes)]
        self._order.copy_(self._ids[torch.cat(drawn)[: len(self._order)]])
        for column, source in zip(self._noise.unbind(1), numbers, strict=True):
            column.uniform_(generator=source)
        self.cursor.zero_()

    def take(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the next sample ids [size] and their uniform numbers [size, numbers]."""
        positions = self._offsets[:size] + self.cursor
        self.cursor.add_(size)
        noise = self._noise.index_select(0, positions) if self._noise.shape[1] else self._noise
        return self._order.index_select(0, positions), noise

    def state(self) -> dict[str, Tensor]:
        """Return the generators' states at the end of an epoch."""
        return {name: drawn.get_state() for name, drawn in self._generators.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue where ``state`` was taken."""
        for name, drawn in self._generators.items():
            drawn.set_state(state[name].cpu())


class Feed(Stream):
    """A stream of images in several views: each a kind and the pipeline that makes it."""

    def __init__(
        self, name: str, views: Sequence[tuple[str, Pipeline]], data: Data, ids: Tensor, **how: Any
    ) -> None:
        super().__init__(name, ids, purposes(views), **how)
        self._data, self.pipelines = data, [pipeline for _, pipeline in views]
        self.views = len(views)

    def samples(self, size: int, magnitude: Tensor | None, form: torch.memory_format) -> Samples:
        """Return the next samples in all their views, laid out as ``form``."""
        ids, noise = self.take(size)
        images = self._data.images.index_select(0, ids)
        numbers = noise.split([pipeline.columns for pipeline in self.pipelines], 1)
        views = tuple(
            pipeline(images, u, magnitude).contiguous(memory_format=form)
            for pipeline, u in zip(self.pipelines, numbers, strict=True)
        )
        return Samples(views, self._data.labels.index_select(0, ids), ids)


def purposes(views: Sequence[tuple[str, Pipeline]]) -> list[str]:
    """Name every uniform number that one sample takes, views in order.

    A view is named by its kind and how many of that kind come before it, a number by its op: so
    arms that share an op share its draws, wherever else they differ.
    """
    names: list[str] = []
    kinds: list[str] = []
    for kind, pipeline in views:
        names += [f"{kind}.{kinds.count(kind)}/{name}" for name in pipeline.names]
        kinds.append(kind)
    return names
