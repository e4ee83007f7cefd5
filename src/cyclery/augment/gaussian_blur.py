"""Gaussian blur of a random width (SimCLR, BYOL)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cyclery.augment import Images, Op, Stage
from cyclery.augment._ranges import check_range
from cyclery.augment._taps import summed
from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.models import Shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings(Op):
    """Blur with a Gaussian whose sigma is uniform (Chen et al. 2020, arXiv 2002.05709, appendix A).

    The kernel reaches as many whole pixels each way as fit into half its share of the shorter side:
    11 of 224, 1 of 32. Beyond the border the image is mirrored about its outermost pixels, as in
    torchvision, or zero, as in the published codes of SimCLR and BYOL.
    """

    sigma: tuple[float, float] = field(
        default=(0.1, 2.0),
        metadata={"doc": "least and greatest sigma in pixels", "low": 0.01},
    )
    kernel: float = field(
        default=0.1,
        metadata={"doc": "kernel, as a share of the shorter side", "above": 0.0, "high": 1.0},
    )
    p: float = field(default=0.5, metadata={"doc": "probability", "above": 0.0, "high": 1.0})
    border: Literal["reflect", "zero"] = field(
        default="reflect", metadata={"doc": "what lies beyond the border"}
    )

    @property
    def columns(self) -> int:
        """Return 2: presence, sigma."""
        return 2

    def radius(self, shape: Shape) -> int:
        """Return how many pixels the kernel reaches each way."""
        # So that a product such as 0.29 x 200 is not 57.99.. for want of a bit.
        return int(self.kernel * min(shape[1:]) / 2 + 1e-9)

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where the range is upside down, or the kernel is a single pixel."""
        check_range(self.sigma, f"{where}.sigma")
        if shape is not None and not self.radius(shape):
            raise UserError(
                f"{where}.kernel: must be at least 2 pixels of the shorter side, "
                f"{min(shape[1:])} pixels (found {self.kernel})."
            )

    def stage(self, images: Images) -> Stage:
        """Return what blurs."""
        return Blur(self, images.shape)


class Blur(Stage):
    """Sum along the rows, then along the columns."""

    squares: Tensor
    down: Tensor
    across: Tensor
    inside_down: Tensor
    inside_across: Tensor

    def __init__(self, op: Settings, shape: Shape) -> None:
        self.p, self.sigma = op.p, op.sigma
        radius = op.radius(shape)
        offset = torch.arange(-radius, radius + 1)
        self.constant("squares", -0.5 * offset.float().square())
        for name, side in (("down", shape[1]), ("across", shape[2])):
            place = offset[:, None] + torch.arange(side)
            inside = (place >= 0) & (place < side)
            mirrored = side - 1 - (side - 1 - place.abs()).abs()
            self.constant(name, mirrored[None])
            self.constant(f"inside_{name}", (inside | (op.border == "reflect")).float())

    def __call__(self, x: Tensor, u: Tensor, magnitude: Tensor | None) -> Tensor:
        """Return float32 images."""
        x = x.float()
        low, high = self.sigma
        sigma = u[:, 1:] * (high - low) + low
        weight = (self.squares / sigma.square()).exp_()
        weight = (weight / weight.sum(1, keepdim=True))[:, :, None]
        blurred = summed(x, self.down, weight * self.inside_down, 2)
        blurred = summed(blurred, self.across, weight * self.inside_across, 3)
        return torch.where(u[:, :1, None, None] < self.p, blurred, x)
