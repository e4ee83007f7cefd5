"""The stages of an augmentation but the random ops: move, normalise, cover.

A stage takes images [B, C, H, W], its own uniform numbers [B, columns] and the magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn

from cyclery.augment.settings import Cutout, Erasing, Flip, Shift
from cyclery.models import Shape


class Stage(nn.Module):
    """One pass over the batch; it reads ``columns`` of the uniform numbers."""

    columns = 0

    def constant(self, name: str, value: Tensor | None) -> None:
        """Keep a tensor that moves with the pipeline but is no part of any state."""
        self.register_buffer(name, value, persistent=False)


class Normalise(Stage):
    """(x / max_value - mean) / std as one multiplication and one addition."""

    scale: Tensor
    offset: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], max_value: int) -> None:
        super().__init__()
        # In float64 first: the constants carry the only rounding error that is avoidable.
        scale = 1 / torch.tensor(std, dtype=torch.float64).view(-1, 1, 1)
        offset = -torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1) * scale
        self.constant("scale", (scale / max_value).float())
        self.constant("offset", offset.float())

    def forward(self, x: Tensor, u: Tensor | None, magnitude: Tensor | None) -> Tensor:
        """Return normalised float32; in place where ``x`` is float already (an earlier stage's)."""
        return x.float().mul_(self.scale).add_(self.offset)


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

    def __init__(self, ops: Sequence[Shift | Flip], shape: Shape) -> None:
        super().__init__()
        _, height, width = shape
        self.columns = sum(op.columns for op in ops)
        self.pixels = height * width
        shifts = [op for op in ops if isinstance(op, Shift)]
        size = sum(op.size for op in shifts)
        self.choices = 2 * size + 1
        self.padded = any(op.border == "zero" for op in shifts)
        move = torch.arange(-size, size + 1)[:, None]
        rows, cols = move + torch.arange(height), move + torch.arange(width)
        if self.padded:
            rows = torch.where((rows >= 0) & (rows < height), rows * width, self.pixels)
            cols = torch.where((cols >= 0) & (cols < width), cols, self.pixels)
        else:
            rows, cols = _reflected(rows, height) * width, _reflected(cols, width)
        self.shift: int | None = None
        self.flip: int | None = None
        steps: list[int] = []
        low: list[float] = []
        for op in ops:
            if isinstance(op, Shift):
                self.shift = len(steps)
                steps += [self.choices, self.choices]
                low += [0.0, 0.0]
            else:
                # floor(u + 1 - p) is 0, the mirrored half of the table, with probability p.
                self.flip = len(steps)
                steps += [1]
                low += [1 - op.p]
                mirrored = cols.flip(1) if self.shift is not None else cols.flip(0, 1)
                cols = torch.cat((mirrored, cols))
        self.constant("rows", rows[:, :, None])
        self.constant("cols", cols[:, None, :])
        self.constant("steps", torch.tensor(steps, dtype=torch.float32))
        self.constant("low", torch.tensor(low))

    def forward(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
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


def _reflected(place: Tensor, side: int) -> Tensor:
    """Return ``place`` mirrored into 0..side - 1 about the first and the last pixel."""
    return side - 1 - (side - 1 - place.abs()).abs()


def _cover(x: Tensor, hole_y: Tensor, hole_x: Tensor, one: Tensor) -> Tensor:
    """Set ``x`` to 0 in place where ``hole_y`` [B, H] and ``hole_x`` [B, W] are both 1."""
    kept = torch.addcmul(one, hole_y[:, None, :, None], hole_x[:, None, None, :], value=-1)
    return x.mul_(kept)


class CutOut(Stage):
    """Cover a square around a random pixel; of an even side, the larger half lies before it."""

    rows: Tensor
    cols: Tensor
    sides: Tensor
    one: Tensor

    def __init__(self, op: Cutout, shape: Shape) -> None:
        super().__init__()
        self.columns, self.p = op.columns, op.p
        _, height, width = shape
        for name, side in (("rows", height), ("cols", width)):
            first = torch.arange(side)[:, None] - op.size // 2
            pixel = torch.arange(side)
            self.constant(name, ((pixel >= first) & (pixel < first + op.size)).float())
        self.constant("sides", torch.tensor([height, width], dtype=torch.float32))
        self.constant("one", torch.ones(()))

    def forward(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return ``x``, changed in place."""
        centre = (u[:, :2] * self.sides).long()
        hole_y = self.rows.index_select(0, centre[:, 0])
        hole_x = self.cols.index_select(0, centre[:, 1])
        if self.p < 1:
            hole_y = hole_y * (u[:, 2:] < self.p)
        return _cover(x, hole_y, hole_x, self.one)


class Erase(Stage):
    """Cover a rectangle of random area, aspect (height / width) and place."""

    sides: Tensor
    halves: Tensor
    y: Tensor
    x: Tensor
    one: Tensor

    def __init__(self, op: Erasing, shape: Shape) -> None:
        super().__init__()
        self.columns, self.op = op.columns, op
        _, height, width = shape
        self.pixels = height * width
        self.constant("sides", torch.tensor([height, width], dtype=torch.float32))
        self.constant("halves", torch.tensor([0.5, -0.5]))
        self.constant("y", torch.arange(height, dtype=torch.float32))
        self.constant("x", torch.arange(width, dtype=torch.float32))
        self.constant("one", torch.ones(()))

    def forward(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return ``x``, changed in place."""
        (least, most), (flat, tall) = self.op.area, self.op.aspect
        area = (u[:, 1:2] * (most - least) + least) * self.pixels
        log_aspect = u[:, 2:3] * log(tall / flat) + log(flat)
        size = (area.sqrt() * (log_aspect * self.halves).exp()).round_()
        size = torch.minimum(size.clamp_(min=1), self.sides)
        first = (u[:, 3:5] * (self.sides - size + 1)).floor_()
        last = first + size
        present = u[:, :1] < self.op.p
        hole_y = (self.y >= first[:, :1]) & (self.y < last[:, :1]) & present
        hole_x = (self.x >= first[:, 1:]) & (self.x < last[:, 1:])
        return _cover(x, hole_y.float(), hole_x.float(), self.one)
