"""The shapes that figures are made of, in points from the upper left corner of a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

INK = "#000000"
PAPER = "#FFFFFF"
SIZE = 8.5  # of letters
_FLAT = 0.05  # points by which a line may be straightened, in each of a few passes

Points: TypeAlias = NDArray[np.float64]  # [n, 2], from a page's upper left corner
Side = Literal["start", "middle", "end"]
Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, width and height."""


@dataclass(frozen=True)
class Stroke:
    """Lines of one look. One without length is a dot, if it has round ends."""

    lines: list[Points]
    colour: str
    width: float
    dash: tuple[float, ...] = ()
    opacity: float = 1.0
    round: bool = True
    box: Box | None = None
    """What sticks out of it is not shown."""


@dataclass(frozen=True)
class Area:
    """A filled polygon."""

    line: Points
    colour: str
    opacity: float = 1.0
    box: Box | None = None


@dataclass(frozen=True)
class Words:
    """A text by the place of its baseline."""

    x: float
    y: float
    text: str
    colour: str = INK
    size: float = SIZE
    side: Side = "start"
    bold: bool = False
    framed: bool = False
    """Whether it hides what is under it."""


Shape: TypeAlias = Stroke | Area | Words

# Corners of a mark of diameter 2, and whether it is filled.
MARKS: dict[str, tuple[list[list[tuple[float, float]]], bool]] = {
    "diamond": ([[(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)]], True),
    "square": ([[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]], True),
    "up": ([[(0, -1), (1, 0.9), (-1, 0.9)]], True),
    "down": ([[(0, 1), (1, -0.9), (-1, -0.9)]], True),
    "cross": ([[(-1, -1), (1, 1)], [(-1, 1), (1, -1)]], False),
    "bar": ([[(0, -1), (0, 1)]], False),
}


def corners(box: Box) -> Points:
    """Return the corners of a box."""
    left, top, width, height = box
    return np.array([(left, top), (left + width, top), (left + width, top + height),
                     (left, top + height)])  # fmt: skip


def thin(line: Points) -> Points:
    """Leave out points that lie on the line of their neighbours: half of a curve, or more."""
    for _ in range(6):
        # No two neighbours go in one pass, so that each is judged by points that stay.
        before, here, after = line[:-2:2], line[1:-1:2], line[2::2]
        if not len(here):
            break
        along, off = after - before, here - before
        length = np.hypot(along[:, 0], along[:, 1])
        across = np.abs(along[:, 0] * off[:, 1] - along[:, 1] * off[:, 0])
        within = (along * off).sum(axis=1)
        flat = (across <= _FLAT * length) & (within >= 0) & (within <= length**2)
        flat &= (length > 0) | ~off.any(axis=1)  # there and back again
        if not flat.any():
            break
        keep = np.ones(len(line), dtype=bool)
        keep[1:-1:2] = ~flat
        line = line[keep]
    return line


def finite(line: Points) -> Iterator[Points]:
    """Yield the finite pieces of a line."""
    some = np.isfinite(line).all(axis=1)
    if some.all():
        yield line
        return
    for piece in np.split(line, np.flatnonzero(~some)):
        kept = piece[np.isfinite(piece).all(axis=1)]
        if len(kept):
            yield kept
