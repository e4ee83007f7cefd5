"""TResNet-M of timm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.models._settings import ModelSettings, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(ModelSettings):
    """TResNet-M of timm (Ridnik et al. 2021), an optional extra: ``pip install timm``."""

    FEATURES = False
    MIN_SIDE = 32

    def check_shape(self, shape: Shape, where: str) -> None:
        """Raise a UserError where the stem cannot fold the image into blocks of 4 x 4 pixels."""
        super().check_shape(shape, where)
        if shape[1] % 4 or shape[2] % 4:
            raise UserError(
                f"{where}: needs images with sides that are multiples of 4 "
                f"(found {shape[1]} x {shape[2]})."
            )


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return timm's TResNet-M with random weights."""
    from cyclery.models._external import imported, with_own_dropout

    network: nn.Module = imported("timm", "tresnet_m").create_model(
        "tresnet_m", pretrained=False, num_classes=classes, in_chans=shape[0]
    )
    return with_own_dropout(network)
