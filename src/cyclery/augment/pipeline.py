"""Batched augmentation on the device: one call per batch, a value of its own for each image.

Nothing is drawn here: every random choice is a function of uniform numbers ``u`` [B, columns], so
a run's weak views depend on its generator alone. No shape depends on data and nothing is read back
to the host, so a call can be captured in a CUDA graph; call it outside autocast.

Images come as uint8 in 0..max_value (255, or 16 for the digits) and leave as normalised float32:
    pipeline = Pipeline([{"op": "shift", "size": 1}], (1, 8, 8), mean, std, max_value=16)
    x = pipeline(images, torch.rand(len(images), pipeline.columns))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cyclery.augment.policy import WHITE, RandomPolicy
from cyclery.augment.randaugment import RandomOps
from cyclery.augment.settings import (
    Cutout,
    Erasing,
    Flip,
    Op,
    Policy,
    RandAugment,
    Shift,
    check,
    needs_magnitude,
)
from cyclery.augment.stages import CutOut, Erase, Move, Normalise, Stage
from cyclery.common.errors import UserError
from cyclery.models import Shape


class Pipeline(nn.Module):
    """Augment and normalise a batch; ``Pipeline([], ...)`` only normalises, as for evaluation.

    ``spec`` lists the ops (``augment_settings``), ``shape`` is (channels, height, width), ``mean``
    and ``std`` hold a number per channel for images scaled to 0..1. ``to(device)`` moves it.
    ``names`` says what each column of u is for, as ``op.occurrence/number``: the second number of
    the first shift is ``shift.0/1``.
    Raises a UserError for settings that are wrong or do not suit the images.
    """

    def __init__(
        self,
        spec: Sequence[Mapping[str, Any]],
        shape: Shape,
        mean: Sequence[float],
        std: Sequence[float],
        max_value: int,
    ) -> None:
        super().__init__()
        ops = check(spec, shape)
        _check_statistics(shape, mean, std, max_value)
        self.names = _names([entry["op"] for entry in spec], ops)
        self.columns = len(self.names)
        self.needs_magnitude = needs_magnitude(ops)
        stages, max_value = _before(ops, shape, mean, max_value)
        stages.append(Normalise(mean, std, max_value))
        for op in ops:
            if isinstance(op, Cutout):
                stages.append(CutOut(op, shape))
            elif isinstance(op, Erasing):
                stages.append(Erase(op, shape))
        self.stages = nn.ModuleList(stages)
        self._slices = _slices(stages)

    def forward(
        self, images: Tensor, u: Tensor | None = None, magnitude: Tensor | None = None
    ) -> Tensor:
        """Return float32 [B, C, H, W] for uint8 ``images`` [B, C, H, W].

        ``u`` [B, columns] lies in [0, 1) and may be None where no op takes any; ``magnitude``
        (0-dim, 0 to 10) drives RandAugment where its settings fix none. Raises a ValueError where
        one of them is missing or of the wrong kind.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, found {images.dtype}")
        if self.columns and (u is None or u.shape != (len(images), self.columns)):
            found = None if u is None else tuple(u.shape)
            raise ValueError(f"u must be {(len(images), self.columns)}, found {found}")
        if self.needs_magnitude and magnitude is None:
            raise ValueError("randaugment without m needs a magnitude")
        x = images
        for stage, used in zip(self.stages, self._slices, strict=True):
            x = stage(x, None if used is None or u is None else u[:, used], magnitude)
        return x


def _names(kinds: Sequence[str], ops: Sequence[Op]) -> tuple[str, ...]:
    """Return a name for each column of u; those that cover come last in ``ops`` and in u."""
    return tuple(
        f"{kind}.{kinds[:index].count(kind)}/{column}"
        for index, (kind, op) in enumerate(zip(kinds, ops, strict=True))
        for column in range(op.columns)
    )


def _slices(stages: Sequence[Stage]) -> list[slice | None]:
    """Return the columns of u that each stage reads; None where it reads none."""
    slices: list[slice | None] = []
    start = 0
    for stage in stages:
        stop = start + stage.columns
        slices.append(slice(start, stop) if stage.columns else None)
        start = stop
    return slices


def _check_statistics(
    shape: Shape, mean: Sequence[float], std: Sequence[float], max_value: int
) -> None:
    if not len(mean) == len(std) == shape[0]:
        raise UserError(
            f"augment: mean and std must hold one number for each of {shape[0]} channels "
            f"(found {len(mean)} and {len(std)})."
        )
    if min(std) <= 0 or max_value <= 0:
        raise UserError(
            f"augment: std and max_value must be above 0 (found {list(std)} and {max_value})."
        )


def _before(
    ops: Sequence[Op], shape: Shape, mean: Sequence[float], max_value: int
) -> tuple[list[Stage], int]:
    """Return the stages on raw pixels, and the largest value that they leave.

    A shift and a flip that are neighbours share one stage.
    """
    stages: list[Stage] = []
    moves: list[Shift | Flip] = []

    def finish_moves() -> None:
        if moves:
            stages.append(Move(moves, shape))
            moves.clear()

    for op in ops:
        if isinstance(op, Shift | Flip):
            if any(type(op) is type(other) for other in moves):
                finish_moves()
            moves.append(op)
        elif isinstance(op, RandAugment):
            finish_moves()
            stages.append(RandomOps(op, shape, max_value))
        elif isinstance(op, Policy):
            finish_moves()
            stages.append(RandomPolicy(op, shape, mean, max_value))
            max_value = WHITE
    finish_moves()
    return stages, max_value
