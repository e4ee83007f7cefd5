"""Base class of optimisers: one update rule over all parameters as one flat vector.

Hyper-parameters arrive as 0-dim tensors on the vector's device, so nothing here waits for the
host and a step can be captured into a CUDA graph. Of K runs that train as one program the vectors
are [K, P], and hyper-parameters [K, 1]; rules broadcast.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cyclery.common.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from cyclery.optim.flat.parameters import Vectors

# On a CPU the vector is updated in pieces that stay in the cache (measured: 1.7 times faster at
# 1.5 million parameters, no slower below). A GPU wants one kernel over everything.
CPU_CHUNK = 1 << 16
# Of several runs a piece has fewer columns, but whole blocks: then no element is computed otherwise
# than in a wider one.
CPU_BLOCK = 1 << 10

Row = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Part:
    """A piece of every vector: parameters, gradients, state, scratch; and what decays how."""

    p: Tensor
    g: Tensor
    state: tuple[Tensor, ...]
    scratch: tuple[Tensor, ...]
    decays: tuple[tuple[Tensor, Tensor, str], ...]


class Optimiser(ABC):
    """One update rule over a flat vector.

    `step` reads ``lr``, ``weight_decay``, ``weight_decay_norm`` (no-decay group) and, where the
    rule has it, ``momentum`` from the row: float32 0-dim tensors, or [K, 1]. It uses the gradients
    as scratch. ``decay=False`` and ``decay_norm=False`` promise that a decay is always zero, which
    saves its kernel and its row entry.

    A rule says which vectors it keeps (``VECTORS``) and how one part of them is updated
    (``_update``). What needs all parameters at once, such as norms by layer, it takes from
    ``flat.views`` before the parts, in ``step`` or ``_scalars``.
    """

    VECTORS: tuple[str, ...] = ()  # names of the state vectors
    SCRATCH = 0  # how many vectors of scratch
    coupled = True

    def __init__(
        self, flat: Vectors, settings: Any, *, decay: bool = True, decay_norm: bool = True
    ) -> None:
        self.settings = settings
        self._state = {name: torch.zeros_like(flat.data) for name in self.VECTORS}
        groups = [
            (0, flat.decay_end, "weight_decay", decay),
            (flat.decay_end, len(flat), "weight_decay_norm", decay_norm),
        ]
        self._groups = [(start, stop, name) for start, stop, name, on in groups if on]
        self._parts = list(self._split(flat))

    def _split(self, flat: Vectors) -> Iterator[Part]:
        size, rows = len(flat), flat.data.shape[:-1]
        if flat.data.device.type == "cpu":
            size = max(CPU_CHUNK // math.prod(rows) // CPU_BLOCK, 1) * CPU_BLOCK
        pool = flat.data.new_empty(self.SCRATCH, *rows, min(size, len(flat)))
        for start in range(0, len(flat), size):
            stop = min(start + size, len(flat))
            decays = []
            for first, last, name in self._groups:
                a, b = max(start, first), min(stop, last)
                if a < b:
                    decays.append((flat.data[..., a:b], flat.grad[..., a:b], name))
            yield Part(
                flat.data[..., start:stop],
                flat.grad[..., start:stop],
                tuple(vector[..., start:stop] for vector in self._state.values()),
                tuple(vector[..., : stop - start] for vector in pool),
                tuple(decays),
            )

    def step(self, row: Row) -> None:
        """Update the parameters in place."""
        scalars = self._scalars(row)
        shrink = {}
        if not self.coupled:
            shrink = {name: row["lr"] * row[name] for _, _, name in self._groups}
        for part in self._parts:
            for p, g, name in part.decays:
                if self.coupled:
                    g.addcmul_(p, row[name])
                else:
                    p.addcmul_(p, shrink[name], value=-1)
            self._update(part, row, scalars)

    def state(self) -> dict[str, Tensor]:
        """Return the live state; saving is cloning it, restoring is ``copy_`` into it."""
        return dict(self._state)

    def _scalars(self, row: Row) -> tuple[Tensor, ...]:
        """Return what is computed once per step, a number for a run."""
        return ()

    @abstractmethod
    def _update(self, part: Part, row: Row, scalars: tuple[Tensor, ...]) -> None:
        """Update one part, whose coupled decay its gradients already hold."""


def average_square(mean: Tensor, x: Tensor, keep: float) -> None:
    """Move a running mean of squares: keep * mean + (1 - keep) * x^2."""
    mean.mul_(keep).addcmul_(x, x, value=1 - keep)
