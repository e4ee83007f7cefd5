"""A stream of training samples on the device, paired across arms by the seed.

The order, and each number that weak augmentation takes, have a generator of their own, seeded from
the seed and the purpose and never from the arm. The random numbers of an epoch are drawn at its
start, for every position: so two arms see the same samples in the same weak views whatever their
batch sizes are, whatever else their methods draw and whatever augmentation follows in one of them.
"""

from __future__ import annotations

from hashlib import sha256

import torch
from torch import Tensor


def derive(seed: int, purpose: str) -> int:
    """Return the 63-bit seed of one purpose of one run."""
    return int.from_bytes(sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator of its own for ``purpose``."""
    return torch.Generator(device).manual_seed(derive(seed, purpose))


class Stream:
    """Samples ``ids`` in a new order every epoch, each with its uniform numbers for augmentation.

    ``take`` advances a cursor on the device, so a captured step can be replayed.
    """

    def __init__(
        self, ids: Tensor, columns: int, largest: int, seed: int, device: torch.device
    ) -> None:
        self._ids = ids.cpu()
        # The order is drawn on the CPU, where it is the same for every device.
        self.order_generator = generator(seed, "order")
        self.weak_generators = [generator(seed, f"weak/{c}", device) for c in range(columns)]
        self._order = torch.empty(len(ids), dtype=torch.int64, device=device)
        self._noise = torch.empty(len(ids), columns, device=device)
        self._cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self._offsets = torch.arange(largest, device=device)

    def begin_epoch(self) -> None:
        """Draw the order and the numbers of an epoch; not part of a captured step."""
        permutation = torch.randperm(len(self._ids), generator=self.order_generator)
        self._order.copy_(self._ids[permutation])
        for column, drawn in zip(self._noise.unbind(1), self.weak_generators, strict=True):
            column.uniform_(generator=drawn)
        self._cursor.zero_()

    def take(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the next sample ids [size] and their uniform numbers [size, columns]."""
        positions = self._offsets[:size] + self._cursor
        self._cursor.add_(size)
        noise = self._noise.index_select(0, positions) if self._noise.shape[1] else self._noise
        return self._order.index_select(0, positions), noise

    def state(self) -> dict[str, Tensor]:
        """Return the generators' states at the end of an epoch."""
        return {name: drawn.get_state() for name, drawn in self._generators().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue where ``state`` was taken."""
        for name, drawn in self._generators().items():
            drawn.set_state(state[name].cpu())

    def _generators(self) -> dict[str, torch.Generator]:
        weak = {f"weak_{c}": drawn for c, drawn in enumerate(self.weak_generators)}
        return {"order": self.order_generator, **weak}
