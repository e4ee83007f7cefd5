"""What the settings of all networks share: torch-free, as ``cyclery.models.settings`` is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cyclery.common.errors import UserError

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class ModelSettings:
    """What all networks share: where they are built and which images they take."""

    FILE: ClassVar[str]
    """Module of this package whose function, named like the network, builds it."""
    MIN_SIDE: ClassVar[int] = 1
    """Smallest image side in pixels."""
    CHANNELS: ClassVar[int | None] = None
    """The only number of image channels, where there is one."""

    @property
    def batch_norm(self) -> bool:
        """Return whether the network has batch norm: all do unless they are told otherwise."""
        return bool(getattr(self, "norm", "batch") == "batch")

    def check(self, where: str) -> None:
        """Raise a UserError where values that are fine alone do not fit together."""

    def min_side(self) -> int:
        """Return the smallest image side in pixels, which may depend on the settings."""
        return self.MIN_SIDE

    def check_shape(self, shape: Shape, where: str) -> None:
        """Raise a UserError where images of ``shape`` (channels, height, width) do not fit."""
        found = f"(found {shape[0]} channels of {shape[1]} x {shape[2]})"
        if self.CHANNELS not in (None, shape[0]):
            raise UserError(f"{where}: needs images of {self.CHANNELS} channels {found}.")
        side = self.min_side()
        if min(shape[1:]) < side:
            raise UserError(f"{where}: needs images of at least {side} x {side} pixels {found}.")
