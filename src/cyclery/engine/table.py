"""The schedule table of a run: the value of every quantity at every update, on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from cyclery import schedules
from cyclery.common.errors import UserError, choices
from cyclery.methods import Course
from cyclery.records.record import RunSettings


class Table:
    """The schedule table S[t, quantity] of a run, on its device.

    ``own`` returns the columns that its method makes of the course of the run, whose first stream
    has a pool of ``pool`` samples; a UserError where there is no such quantity.
    """

    def __init__(
        self,
        settings: RunSettings,
        samples: int,
        bounds: tuple[float, float] | None,
        device: torch.device,
        own: Callable[[Course], Mapping[str, schedules.Column]] = lambda course: {},
        pool: int = 0,
    ) -> None:
        specs = dict(settings["schedules"])
        batches = schedules.epoch_batches(specs.pop("batch"), settings["epochs"], settings["seed"])
        self.clock, self.steps = schedules.clock_for(batches, samples)
        self.batches = [int(b) for b in batches]
        self.names = sorted(specs)
        self.columns = {
            name: schedules.column(specs[name], self.clock, settings["seed"], bounds)
            for name in self.names
        }
        course = Course.of(pool, self.columns, batches, self.steps)
        for name, column in own(course).items():
            if name not in self.columns:
                raise UserError(
                    f"method: `columns` returns {name!r}, which is no quantity; there are "
                    f"{choices(self.columns)}."
                )
            self.columns[name] = np.broadcast_to(column, (self.clock.updates,))
        table = np.stack([self.columns[name] for name in self.names], axis=1)
        self._table = torch.tensor(table, dtype=torch.float32, device=device)

    @property
    def decays(self) -> dict[str, bool]:
        """Whether weights ever decay, and whether biases and norms do, as optimisers want it."""
        return {
            "decay": bool(self.columns["weight_decay"].any()),
            "decay_norm": bool(self.columns["weight_decay_norm"].any()),
        }

    def rows(self, first: int, count: int) -> Tensor:
        """Return the values [count, quantities] of the next updates, as ``names`` orders them."""
        return self._table[first : first + count]

    def row(self, update: Tensor) -> dict[str, Tensor]:
        """Return the 0-dim value of every quantity at the update that ``update`` [1] counts."""
        values = self._table.index_select(0, update).view(-1).unbind()
        return dict(zip(self.names, values, strict=True))
