"""The augmentation pipeline: one call per batch, with independent random values per image.

Nothing is drawn here: every random choice is a function of uniform numbers ``u`` [B, columns], so
a run's weak views depend on its generator alone. No shape depends on data and nothing is read back
to the host, so a call can be captured in a CUDA graph; call it outside autocast.

Images come as uint8 in 0..max_value (255, or 16 for the digits) and leave as normalised float32:
    pipeline = Pipeline([{"op": "shift", "size": 1}], (1, 8, 8), mean, std, max_value=16)
    x = pipeline(images, torch.rand(len(images), pipeline.columns))
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from cyclery.augment._files import check
from cyclery.augment._normalise import Normalise
from cyclery.augment._op import Images, Op, Stage
from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor


class Pipeline:
    """Augment and normalise a batch; ``Pipeline([], ...)`` only normalises, as for evaluation.

    ``spec`` lists the ops, ``shape`` is (channels, height, width), ``mean`` and ``std`` hold a
    number per channel for images scaled to 0..1. ``to(device)`` moves it.
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
        ops = check(spec, shape)
        _check_statistics(shape, mean, std, max_value)
        self.names = _names([entry["op"] for entry in spec], ops)
        self.columns = len(self.names)
        self.needs_magnitude = any(op.needs_magnitude for op in ops)
        images = Images(shape, tuple(mean), max_value)
        pixels, images = _stages([op for op in ops if op.ON == "pixels"], images)
        finished, _ = _stages([op for op in ops if op.ON == "normalised"], images)
        normalise = (Normalise(mean, std, images.max_value), 0)
        stages, counts = zip(*pixels, normalise, *finished, strict=True)
        ends = list(accumulate(counts))
        # Each stage, with the columns of u that it reads.
        self._stages: list[tuple[Stage, slice]] = [
            (stage, slice(end - count, end))
            for stage, count, end in zip(stages, counts, ends, strict=True)
        ]

    def to(self, device: torch.device | str) -> Pipeline:
        """Move what the stages keep to ``device``, and return the pipeline."""
        for stage, _ in self._stages:
            stage.to(device)
        return self

    def __call__(
        self, images: Tensor, u: Tensor | None = None, magnitude: Tensor | None = None
    ) -> Tensor:
        """Return float32 [B, C, H, W] for uint8 ``images`` [B, C, H, W].

        ``u`` [B, columns] lies in [0, 1) and may be None where no op takes any; ``magnitude``
        (0-dim or [B], 0 to 10) drives RandAugment where its settings fix none. Raises a ValueError
        where one of them is missing or of the wrong kind, and a UserError where an op changes the
        shape.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, found {images.dtype}")
        if not self.columns:
            u = images[:, 0, 0, :0]  # none, without a kernel
        if u is None or u.shape != (len(images), self.columns):
            found = None if u is None else tuple(u.shape)
            raise ValueError(f"u must be {(len(images), self.columns)}, found {found}")
        if self.needs_magnitude and magnitude is None:
            raise ValueError("an op that fixes no strength of its own needs a magnitude")
        x = images
        for stage, used in self._stages:
            x = stage(x, u[:, used], magnitude)
            if x.shape != images.shape:
                raise UserError(
                    f"{inspect.getsourcefile(type(stage))}: a stage must return images of the "
                    f"shape {tuple(images.shape)} that it is given (found {tuple(x.shape)})."
                )
        return x


def _names(kinds: Sequence[str], ops: Sequence[Op]) -> tuple[str, ...]:
    """Return a name for each column of u; those on the finished image come last in ``ops``."""
    return tuple(
        f"{kind}.{kinds[:index].count(kind)}/{column}"
        for index, (kind, op) in enumerate(zip(kinds, ops, strict=True))
        for column in range(op.columns)
    )


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


def _stages(ops: Sequence[Op], images: Images) -> tuple[list[tuple[Stage, int]], Images]:
    """Return the stages, each with how many numbers it takes, and the images that they leave."""
    found: list[tuple[Stage, int]] = []
    for op in ops:
        stage, columns = op.stage(images), op.columns
        if stage.max_value is not None:
            images = replace(images, max_value=stage.max_value)
        if found and (both := found[-1][0].joined(stage)):
            found[-1] = (both, found[-1][1] + columns)
        else:
            found.append((stage, columns))
    return found, images
