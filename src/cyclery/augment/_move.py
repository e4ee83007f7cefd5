"""Shift and flip, fused into one gather where they are neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cyclery.augment._op import Stage
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor


class Shift(NamedTuple):
    """A move by up to ``size`` pixels each way, and what comes in at the border.

    Zeros, or the image mirrored: about its outermost pixels, or with ``edge`` about its edge.
    """

    size: int
    zero: bool
    edge: bool = False


class Flip(NamedTuple):
    """A mirror image with probability ``p``."""

    p: float


class Move(Stage):
    """At most one shift and one flip, in either order, as one gather over the flat image.

    Output pixel (y, x) reads position ``rows[dy][y] + cols[dx, flip][x]``. Where the border is zero
    and either lies outside the image, the sum is beyond its last pixel and means the zero that is
    put there; a reflected border is in the tables.
    """

    rows: Tensor
    cols: Tensor
    steps: Tensor
    low: Tensor

    def __init__(self, steps: Sequence[Shift | Flip], shape: Shape) -> None:
        _, height, width = shape
        self.moves, self.shape = list(steps), shape
        self.pixels = height * width
        shifts = [step for step in steps if isinstance(step, Shift)]
        size = sum(step.size for step in shifts)
        self.choices = 2 * size + 1
        self.padded = any(step.zero for step in shifts)
        move = torch.arange(-size, size + 1)[:, None]
        rows, cols = move + torch.arange(height), move + torch.arange(width)
        if self.padded:
            rows = torch.where((rows >= 0) & (rows < height), rows * width, self.pixels)
            cols = torch.where((cols >= 0) & (cols < width), cols, self.pixels)
        else:
            edge = any(step.edge for step in shifts)
            rows = _reflected(rows, height, edge) * width
            cols = _reflected(cols, width, edge)
        self.shift: int | None = None
        self.flip: int | None = None
        choices: list[int] = []
        low: list[float] = []
        for step in steps:
            if isinstance(step, Shift):
                self.shift = len(choices)
                choices += [self.choices, self.choices]
                low += [0.0, 0.0]
            else:
                # floor(u + 1 - p) is 0, the mirrored half of the table, with probability p.
                self.flip = len(choices)
                choices += [1]
                low += [1 - step.p]
                mirrored = cols.flip(1) if self.shift is not None else cols.flip(0, 1)
                cols = torch.cat((mirrored, cols))
        self.constant("rows", rows[:, :, None])
        self.constant("cols", cols[:, None, :])
        self.constant("steps", torch.tensor(choices, dtype=torch.float32))
        self.constant("low", torch.tensor(low))

    def joined(self, following: Stage) -> Stage | None:
        """Return one gather for both, where the two are a shift and a flip."""
        if isinstance(following, Move):
            moves = [*self.moves, *following.moves]
            if len({type(move) for move in moves}) == len(moves):
                return Move(moves, self.shape)
        return None

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return the moved images, of the type of ``x``."""
        batch, channels, height, width = x.shape
        chosen = torch.addcmul(self.low, u, self.steps).long().unbind(1)
        flat, rows = x.flatten(2), self.rows
        if self.shift is None:
            column = chosen[0]
        else:
            rows = rows.index_select(0, chosen[self.shift])
            column = chosen[self.shift + 1]
            if self.flip is not None:
                column = torch.add(column, chosen[self.flip], alpha=self.choices)
        index = rows + self.cols.index_select(0, column)
        if self.padded:
            flat = torch.cat((flat, x.new_zeros(()).expand(batch, channels, 1)), 2)
            index.clamp_(max=self.pixels)
        index = index.view(batch, 1, -1).expand(-1, channels, -1)
        return flat.gather(2, index).view(batch, channels, height, width)


def _reflected(place: Tensor, side: int, edge: bool) -> Tensor:
    """Return ``place`` mirrored into 0..side - 1 about the first and the last pixel.

    With ``edge`` about the outer edges of these pixels, which then appear twice.
    """
    if edge:
        place = torch.where(place < 0, -1 - place, place)
        return torch.where(place >= side, 2 * side - 1 - place, place)
    return side - 1 - (side - 1 - place.abs()).abs()
