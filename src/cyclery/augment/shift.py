"""Random translation by whole pixels: padding and a random crop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cyclery.augment import Images, Op, Stage, check_side
from cyclery.augment._move import Move, Shift
from cyclery.models import Shape


@dataclass(frozen=True)
class Settings(Op):
    """Move by a random whole number of pixels each way.

    The same as padding with ``size`` pixels on each side and cropping at random. The padding is
    black, or the image mirrored: with ``reflect`` about its outermost pixels, which appear once,
    with ``symmetric`` about its edge, so that they appear twice (as numpy names both).
    """

    size: int = field(metadata={"doc": "furthest move in pixels, each way", "low": 1})
    border: Literal["zero", "reflect", "symmetric"] = field(
        default="zero", metadata={"doc": "what comes in at the border"}
    )

    @property
    def columns(self) -> int:
        """Return 2: down and right."""
        return 2

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where the image could leave the frame."""
        check_side(self.size, shape, f"{where}.size", below=True)

    def stage(self, images: Images) -> Stage:
        """Return a gather, which a flip beside it shares."""
        return Move(
            [Shift(self.size, self.border == "zero", self.border == "symmetric")], images.shape
        )
