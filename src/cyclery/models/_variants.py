"""Settings of networks that methods for small datasets change; no torch is imported.

L. Brigato, B. Barz, L. Iocchi, J. Denzler, Image Classification with Small Datasets: Overview and
Benchmark (IEEE Access 2022, arXiv 2212.12478), sections on the compared methods.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cyclery.common.errors import UserError
from cyclery.models._settings import LATER, ModelSettings

# Of the grouped convolutions in selective kernels: of networks for small images, and of ResNet-50.
GROUPS_SMALL, GROUPS = 8, 32

Convolution = Literal["plain", "harmonic", "full"]
Blocks = Literal["plain", "dual_selective_kernel"]


@dataclass(frozen=True)
class ConvolutionSettings(ModelSettings):
    """Which convolutions a network has, and whether fixed wavelets come before them."""

    convolution: Convolution = field(
        default="plain",
        metadata={
            "doc": "convolutions of more than one pixel. harmonic: learnt sums of fixed cosine "
            "filters (Ulicny et al. 2019); full: padded so that every weight sees every pixel, "
            "and maps grow (Kayhan and van Gemert 2020)",
            **LATER,
        },
    )
    scattering: int = field(
        default=0,
        metadata={
            "doc": "scales J of a wavelet scattering of order 2 in the place of the first layers "
            "(Oyallon et al. 2017), at 2^J times smaller sides; 0: none",
            "low": 0,
            "high": 6,
            **LATER,
        },
    )

    def check(self, where: str) -> None:
        """Raise a UserError for two changes at once, and a norm that the change does not allow."""
        changes = {"convolution": self.convolution != "plain", "scattering": self.scattering > 0}
        changes["blocks"] = getattr(self, "blocks", "plain") == "dual_selective_kernel"
        made = [key for key, changed in changes.items() if changed]
        if len(made) > 1:
            raise UserError(
                f"{where}.{made[1]}: a network has one of these changes at a time (found "
                f"{' and '.join(made)}); leave out all but one."
            )
        norm = getattr(self, "norm", "batch")
        if norm != "batch" and (self.convolution == "harmonic" or self.scattering):
            raise UserError(
                f"{where}.{made[0]}: begins with batch norm, so set norm to batch, or leave it out "
                f"(found norm {norm})."
            )

    def min_side(self) -> int:
        """Return the smallest side: scattering mirrors 2^J pixels at the border."""
        return max(self.MIN_SIDE, 2**self.scattering + 1 if self.scattering else 1)


@dataclass(frozen=True)
class BlockSettings(ConvolutionSettings):
    """Besides, which residual blocks it has."""

    blocks: Blocks = field(
        default="plain",
        metadata={
            "doc": "residual blocks. dual_selective_kernel: two branches of selective kernels, one "
            "of them drawn for every batch, their mean in evaluation, and blurred strides "
            "(DSK-Net, Sun et al. 2020)",
            **LATER,
        },
    )

    @property
    def dual(self) -> bool:
        """Return whether the blocks are dual selective kernels."""
        return self.blocks == "dual_selective_kernel"

    def min_side(self) -> int:
        """Return the smallest side: a blurred stride mirrors one pixel, in the last group too."""
        return max(super().min_side(), 3 if self.dual else 1)
