"""Base classes of ops: settings, which planning reads, and the stage that changes images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cyclery.common.errors import UserError
from cyclery.models import Shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Images:
    """The images that a stage is given: their values lie in 0..max_value before normalisation.

    ``shape`` is (channels, height, width); ``mean`` holds a number per channel for images scaled to
    0..1.
    """

    shape: Shape
    mean: tuple[float, ...]
    max_value: int


class Stage(ABC):
    """One pass over the batch, or what an op does to it."""

    max_value: int | None = None
    """The largest value that it leaves, where that is not the largest that it is given."""
    _constants: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return the changed images [B, C, H, W]; ``u`` [B, columns], ``magnitude`` [] or [B]."""

    def constant(self, name: str, value: Tensor | None) -> None:
        """Keep a tensor as the attribute ``name``, which moves with the pipeline."""
        setattr(self, name, value)
        self._constants += (name,)

    def to(self, device: torch.device | str) -> None:
        """Move the constants to ``device``."""
        for name in self._constants:
            if (value := getattr(self, name)) is not None:
                setattr(self, name, value.to(device))

    def joined(self, following: Stage) -> Stage | None:
        """Return one stage for this and the ``following``; None where they cannot share a pass."""
        return None


@dataclass(frozen=True)
class Op(ABC):
    """What all ops share; a file's ``Settings`` adds the keys."""

    ON: ClassVar[Literal["pixels", "normalised"]] = "pixels"
    """Whether it works on raw pixels or, after all of these, on the finished image."""

    @property
    def columns(self) -> int:
        """Return how many uniform numbers one image takes."""
        return 0

    @property
    def needs_magnitude(self) -> bool:
        """Return whether it reads the schedule ``magnitude``."""
        return False

    def check(self, shape: Shape | None, where: str) -> None:  # noqa: B027 (most have nothing)
        """Raise a UserError where values do not fit together or do not fit images of ``shape``."""

    @abstractmethod
    def stage(self, images: Images) -> Stage:
        """Return what changes a batch of images."""


def check_side(size: int, shape: Shape | None, where: str, below: bool) -> None:
    """Raise a UserError unless ``size`` is ``below``, or at most, the image's shorter side."""
    side = min(shape[1:]) if shape else None
    if side is not None and (size > side or (below and size == side)):
        raise UserError(
            f"{where}: must be {'below' if below else 'at most'} the image's side, {side} pixels "
            f"(found {size})."
        )
