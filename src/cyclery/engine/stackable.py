"""What a pack needs of a run. ``run.Run`` has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cyclery.augment import Pipeline
from cyclery.engine.networks import Networks
from cyclery.engine.stream import Data, Feed
from cyclery.engine.table import Table
from cyclery.engine.teachers import Trained
from cyclery.methods import Method, Stream
from cyclery.optim.flat.optimiser import Optimiser
from cyclery.optim.flat.parameters import Flat, Vectors
from cyclery.records.record import RunSettings


class Stackable(Protocol):
    """A run that can train beside others, as one program.

    ``at`` is the update that it goes on from, ``waited`` how long it waited for others. ``logged``
    names what a step logs.
    """

    settings: RunSettings
    device: torch.device
    method: Method
    method_settings: Any
    data: Data
    ids: dict[str, Tensor]
    plain: Pipeline
    table: Table
    streams: dict[str, Stream]
    feeds: dict[str, Feed]
    networks: Networks
    flat: Flat
    models: dict[str, nn.Module]
    generators: dict[str, torch.Generator]
    parents: Mapping[str, Sequence[Trained]]
    update: Tensor
    logged: list[str]
    at: int
    waited: float

    @property
    def program(self) -> str | None:
        """What runs that train as one have in common; None where it trains by itself."""

    def live(self) -> dict[str, Tensor]:
        """Return the live tensors that steps change, by name."""

    def new_optimiser(self, vectors: Vectors | None = None) -> Optimiser:
        """Return a new optimiser of the parameters of several runs."""
