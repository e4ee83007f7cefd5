"""Streams of training samples on the device, paired across arms by the seed.

The order, and each number that augmentation takes, have a generator of their own, seeded from the
seed and the purpose and never from the arm. The random numbers of an epoch are drawn at its start,
for every position: so two arms see the same samples in the same weak views whatever their batch
sizes are, whatever else their methods draw and whatever augmentation they have besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cyclery.augment import Pipeline
from cyclery.common.errors import UserError, choices
from cyclery.data import splits
from cyclery.data.resolution import resized
from cyclery.engine.samplers import Sampler
from cyclery.models import Shape
from cyclery.records.record import RunSettings, SplitChoice


@dataclass(frozen=True)
class Data:
    """A prepared dataset on a device: images uint8 [N, C, H, W], labels int64 [N].

    ``order`` [N_train] is the official position of each training row, where its source has one;
    ``true`` [N] the labels without noise, where a split has added some. ``drawn_by`` [N] are the
    labels that splits are drawn by, where those of test samples are taken out.
    """

    images: Tensor
    labels: Tensor
    manifest: dict[str, Any]
    order: np.ndarray[Any, Any] | None = None
    true: Tensor | None = None
    drawn_by: Tensor | None = None

    @property
    def shape(self) -> Shape:
        """Channels, height and width of an image."""
        channels, height, width = self.manifest["shape"]
        return channels, height, width

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.manifest["classes"])

    def to(self, device: torch.device) -> Data:
        """Return the dataset on ``device``."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def at(self, sides: Mapping[str, int] | None) -> Data:
        """Return the dataset at a split's ``resolution``, itself where that is null."""
        if sides is None:
            return self
        images = resized(self.images, sides["stored"], sides["input"])
        shape = [self.shape[0], sides["input"], sides["input"]]
        return replace(self, images=images, manifest={**self.manifest, "shape": shape})

    def split(self, settings: SplitChoice, seed: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the ids of the parts and pools of a split, no test sample where none are held."""
        found = splits.split(*self._rows, settings, seed, self.order)
        return found if self.drawn_by is None else {**found, "test": found["test"][:0]}

    def trained_on(self, settings: SplitChoice, seed: int, ids: Mapping[str, Any]) -> Data:
        """Return the dataset with the labels and the number of classes that a split trains on."""
        if not (settings.get("noise") or settings.get("open_set")):
            return self
        labels, true = self._labels(settings, seed, ids), None
        if settings.get("noise"):
            true = self._labels({**settings, "noise": None}, seed, ids)
        classes = splits.class_count(settings, self.classes)
        return replace(
            self,
            labels=labels,
            true=true,
            manifest={**self.manifest, "classes": classes},
        )

    def _labels(self, settings: Mapping[str, Any], seed: int, ids: Mapping[str, Any]) -> Tensor:
        """Return the labels [N] that a split trains on; those that are taken out stay so."""
        found = splits.training_labels(*self._rows, settings, seed, ids)
        return torch.from_numpy(found).to(self.labels.device).where(self.labels >= 0, -1)

    def labelled_as(self, pool: str, settings: SplitChoice, seed: int) -> Data:
        """Return the dataset with the labels that a pool has: `labelled.2` those of level 2.

        So a class that is hidden below a coarse label is in no batch.
        """
        level = int(pool.partition(".")[2] or 1)
        if level == 1:
            return self
        # The last one is of samples whose class is not known, -1.
        groups = [*splits.levels(settings, seed)[level - 2], -1]
        return replace(self, labels=torch.tensor(groups, device=self.labels.device)[self.labels])

    @property
    def _rows(self) -> tuple[np.ndarray[Any, Any], int, int]:
        labels = self.labels if self.drawn_by is None else self.drawn_by
        return labels.numpy(force=True), self.manifest["n_train"], self.classes


@dataclass(frozen=True)
class Samples:
    """A batch of a stream: views float [B, C, H, W], y int64 [B], ids int64 [B].

    The labels of an unlabelled stream are for measuring only, never for training. ``mask`` float
    [B] is 0 where a Poisson stream has filled up its tensors, None in other streams. ``expected``
    is B, or of a Poisson stream what it is on average: the divisor of a sum.
    """

    views: tuple[Tensor, ...]
    y: Tensor
    ids: Tensor
    mask: Tensor | None = None
    expected: int = 0

    @property
    def x(self) -> Tensor:
        """The first view."""
        return self.views[0]


@dataclass(frozen=True)
class Batch:
    """The samples of an update, by stream; ``x``, ``y``, ... are those of ``labelled``."""

    streams: Mapping[str, Samples]

    def __getitem__(self, name: str) -> Samples:
        if name not in self.streams:
            raise UserError(
                f"the batch has no stream {name!r}, for `streams` does not declare it (it declares "
                f"{choices(self.streams)})."
            )
        return self.streams[name]

    @property
    def labelled(self) -> Samples:
        """The labelled samples."""
        return self["labelled"]

    @property
    def unlabelled(self) -> Samples:
        """The samples whose labels are hidden."""
        return self["unlabelled"]

    @property
    def views(self) -> tuple[Tensor, ...]:
        """All views of the labelled samples."""
        return self.labelled.views

    @property
    def x(self) -> Tensor:
        """The first view of the labelled samples."""
        return self.labelled.x

    @property
    def y(self) -> Tensor:
        """The labels of the labelled samples."""
        return self.labelled.y

    @property
    def ids(self) -> Tensor:
        """The ids of the labelled samples."""
        return self.labelled.ids


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
    """Samples of a pool ``ids``, ``epoch`` batches' worth an epoch, with uniform numbers each.

    ``numbers`` names the purposes of the numbers. ``take`` advances a cursor on the device, so a
    captured step can be replayed. ``batches`` are the sizes that an update of the run may have.
    """

    def __init__(
        self,
        name: str,
        ids: Tensor,
        numbers: Sequence[str],
        sampler: Sampler,
        *,
        samples: int,
        batches: Sequence[int],
        origin: str,
    ) -> None:
        device = ids.device
        self.name, self._sampler, self._samples = name, sampler, samples
        self.ids = ids.cpu()
        # The order is drawn on the CPU, where it is the same for every device.
        self._generators = {"order": generator(origin, f"{name}/order")}
        self._generators |= {n: generator(origin, f"{name}/{n}", device) for n in numbers}
        sizes = {batch: sampler.size(batch, len(ids)) for batch in set(batches)}
        length = max(sampler.length(samples, batch, len(ids)) for batch in sizes)
        # Zeros, for a step may be tried before the first epoch begins.
        self._order = torch.zeros(length, dtype=torch.int64, device=device)
        self._mask = torch.zeros(length, device=device) if sampler.masks else None
        self._noise = torch.zeros(length, len(numbers), device=device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self._offsets = torch.arange(max(sizes.values()), device=device)

    def begin_epoch(self, batch: int) -> None:
        """Draw the order and the numbers of an epoch; not part of a captured step."""
        if len(self.ids) == 0:
            raise UserError(f"streams: {self.name}: its pool is empty, so it has no sample.")
        order, *numbers = self._generators.values()
        rows, mask = self._sampler.draw(self.ids, self._samples, batch, order)
        self._order[: len(rows)].copy_(rows)
        if self._mask is not None:
            self._mask[: len(mask)].copy_(mask)
        for column, source in zip(self._noise.unbind(1), numbers, strict=True):
            column.uniform_(generator=source)
        self.cursor.zero_()

    def take(self, batch: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the next sample ids [B], their uniform numbers [B, numbers] and mask [B]."""
        size = self.size(batch)
        positions = self._offsets[:size] + self.cursor
        self.cursor.add_(size)
        noise = self._noise.index_select(0, positions) if self._noise.shape[1] else self._noise
        mask = None if self._mask is None else self._mask.index_select(0, positions)
        return self._order.index_select(0, positions), noise, mask

    def size(self, batch: int) -> int:
        """Return how many samples an update has where the first stream's has ``batch``."""
        return self._sampler.size(batch, len(self.ids))

    def ahead(self, batch: int, updates: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what ``take`` does for so many updates at once, on a CPU: [updates x B, ...]."""
        size, start = self.size(batch), int(self.cursor)
        stop = start + size * updates
        self.cursor.fill_(stop)
        mask = None if self._mask is None else self._mask[start:stop]
        return self._order[start:stop], self._noise[start:stop], mask

    def state(self) -> dict[str, Tensor]:
        """Return the generators' states at the end of an epoch."""
        return {name: drawn.get_state() for name, drawn in self._generators.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue where ``state`` was taken."""
        for name, drawn in self._generators.items():
            drawn.set_state(state[name].cpu())


class Feed(Stream):
    """A stream of images in several views: each a kind and the pipeline that makes it.

    ``own`` says that the method fills its pool, perhaps with labels of its own.
    """

    def __init__(
        self,
        name: str,
        views: Sequence[tuple[str, Pipeline]],
        data: Data,
        ids: Tensor,
        sampler: Sampler,
        own: bool = False,
        **how: Any,
    ) -> None:
        super().__init__(name, ids, purposes(views), sampler, **how)
        self._data, self.pipelines = data, [pipeline for _, pipeline in views]
        self.views = len(views)
        # Of all samples, in this epoch and from the next one on.
        self._labels = self._next = data.labels.clone() if own else data.labels
        self._own = own

    def fill(self, ids: Tensor, labels: Tensor | None, known: Tensor) -> None:
        """Make ids [N] the pool, from the next epoch on, with ``labels`` [N] where there are some.

        ``known`` are the ids of samples that are labelled anyway: without labels, a stream that is
        balanced has these alone, for it must not look at labels that are hidden.
        """
        if not self._own:
            raise UserError(
                f"streams: {self.name}: the method fills its pool, which only `own` allows; "
                "declare it as `own`."
            )
        if not len(ids):
            raise UserError(f"streams: {self.name}: the method fills its pool with no sample.")
        self._next = self._data.labels.clone()
        if labels is None:
            if self._sampler.labels is not None and not torch.isin(ids, known).all():
                raise UserError(
                    f"streams: {self.name}: the method fills its pool with samples whose labels "
                    "are hidden, by which it would be balanced; give `fill` their labels."
                )
        elif len(labels) != len(ids) or labels.is_floating_point():
            raise UserError(
                f"streams: {self.name}: the method fills its pool with {len(ids)} samples and "
                f"labels of shape {list(labels.shape)}, {labels.dtype}; each needs a whole number."
            )
        else:
            self._next.index_copy_(0, ids, labels.to(self._next))
        self.ids = ids.detach().cpu()

    def begin_epoch(self, batch: int) -> None:
        """Draw the order and the numbers of an epoch of what is in the pool now."""
        if self._own:
            self._labels.copy_(self._next)
            if self._sampler.labels is not None:
                self._sampler.labels = self._next.cpu()
        super().begin_epoch(batch)

    def samples(self, batch: int, magnitude: Tensor | None, form: torch.memory_format) -> Samples:
        """Return the next samples in all their views, laid out as ``form``."""
        ids, noise, mask = self.take(batch)
        images = self._data.images.index_select(0, ids)
        numbers = noise.split([pipeline.columns for pipeline in self.pipelines], 1)
        views = tuple(
            pipeline(images, u, magnitude).contiguous(memory_format=form)
            for pipeline, u in zip(self.pipelines, numbers, strict=True)
        )
        labels = self._labels.index_select(0, ids)
        return Samples(views, labels, ids, mask, batch * self._sampler.times)

    def state(self) -> dict[str, Tensor]:
        """Return what ``Stream.state`` does, and a pool that a hook filled, with its labels."""
        pool = {"ids": self.ids, "labels": self._next} if self._own else {}
        return pool | super().state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue where ``state`` was taken."""
        super().load_state(state)
        if self._own:
            self.ids = state["ids"].cpu()
            self._next = state["labels"].to(self._labels.device)


def stacked_samples(
    feeds: Sequence[Feed], batch: int, updates: int, magnitude: Tensor | None
) -> Samples:
    """Return the next samples of one stream of K runs, for T updates: every tensor [T, K, B, ...].

    ``magnitude`` [T, K] is that of each run and update. The runs share one dataset.
    """
    first = feeds[0]
    taken = [feed.ahead(batch, updates) for feed in feeds]

    def joined(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([part.unflatten(0, (updates, -1)) for part in parts], 1)

    ids = joined([order for order, _, _ in taken])
    images = first._data.images.index_select(0, ids.flatten())
    numbers = joined([noise for _, noise, _ in taken]).flatten(0, 2)
    if magnitude is not None:
        magnitude = magnitude[:, :, None].expand(ids.shape).flatten()
    columns = [pipeline.columns for pipeline in first.pipelines]
    views = tuple(
        pipeline(images, u, magnitude).unflatten(0, ids.shape)
        for pipeline, u in zip(first.pipelines, numbers.split(columns, 1), strict=True)
    )
    labels = [
        f._labels.index_select(0, order) for f, (order, _, _) in zip(feeds, taken, strict=True)
    ]
    masks = [mask for _, _, mask in taken if mask is not None]
    expected = batch * first._sampler.times
    return Samples(views, joined(labels), ids, joined(masks) if masks else None, expected)


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
