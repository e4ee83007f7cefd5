"""Random horizontal flip."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.augment import Images, Op, Stage
from cyclery.augment._move import Flip, Move


@dataclass(frozen=True)
class Settings(Op):
    """Mirror left and right."""

    p: float = field(default=0.5, metadata={"doc": "probability", "low": 0.001, "high": 1.0})

    @property
    def columns(self) -> int:
        """Return 1."""
        return 1

    def stage(self, images: Images) -> Stage:
        """Return a gather, which a shift beside it shares."""
        return Move([Flip(self.p)], images.shape)
