"""Base class of network settings; no torch is imported, since planning reads it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from cyclery.common.errors import UserError
from cyclery.common.settings import plain

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""

Norm = Literal["batch", "group", "layer", "group_ws", "none"]
Activation = Literal["relu", "leaky", "sigmoid"]
Pooling = Literal["average", "max"]

# Metadata of fields that several networks have.
NORMS = (
    "normalisation: batch; group (16 groups, fewer where a group would hold under 4 channels); "
    "layer (one group over channels and pixels)"
)
NORM: dict[str, Any] = {
    "doc": NORMS + "; group_ws (group, and standardised weights before it: De et al. 2022); none "
    "(a bias in the place of each norm)"
}
NORM_MOMENTUM: dict[str, Any] = {
    "doc": "share of each batch in the running statistics of batch norm (torch's sense: 1 - "
    "TensorFlow's; FixMatch has 0.001)",
    "low": 0,
    "high": 1,
}
NORM_EPS: dict[str, Any] = {"doc": "what the norms add to the variance", "above": 0}
ACTIVATION: dict[str, Any] = {"doc": "activation after each norm; leaky has slope 0.1 below 0"}
# Of fields that came after runs were published: at their default run keys do not mention them.
LATER: dict[str, Any] = {"later": True}
POOLING: dict[str, Any] = {
    "doc": "what the last maps become features by: their average over the pixels, or their largest "
    "value (ProxyNCA++)",
    **LATER,
}
WIDTH: dict[str, Any] = {
    "doc": "factor on all numbers of channels and hidden units; 1 is the papers'",
    "above": 0,
    "high": 5,
}


@dataclass(frozen=True)
class ModelSettings:
    """Base of a network's ``Settings``: which images it takes, and what else planning asks."""

    MIN_SIDE: ClassVar[int] = 1
    """Smallest image side in pixels."""
    CHANNELS: ClassVar[int | None] = None
    """The only number of image channels, where there is one."""
    FEATURES: ClassVar[bool] = True
    """Whether ``features`` gives the vectors before its head."""
    TRAINING_ONLY: ClassVar[tuple[str, ...]] = ("dropout", "norm_momentum")
    """Settings that matter in training alone: in evaluation mode they change nothing."""

    @property
    def batch_norm(self) -> bool:
        """Return whether the network has batch norm: all do unless they are told otherwise."""
        return bool(getattr(self, "norm", "batch") == "batch")

    def check(self, where: str) -> None:
        """Raise a UserError where values that are fine alone do not fit together."""

    def resolved(self) -> dict[str, Any]:
        """Return the settings as run keys and records have them, defaults filled in.

        But for later ones (``LATER``) at their default: what they say was so before them.
        """
        found: dict[str, Any] = plain(self)
        for item in fields(self):
            if item.metadata.get("later") and found[item.name] == item.default:
                del found[item.name]
        return found

    def min_side(self) -> int:
        """Return the smallest image side in pixels, which may depend on the settings."""
        return self.MIN_SIDE

    def check_shape(self, shape: Shape, where: str) -> None:
        """Raise a UserError where images of ``shape`` (channels, height, width) do not fit."""
        found = f"(found {shape[0]} channels of {shape[1]} x {shape[2]})"
        if self.CHANNELS not in (None, shape[0]):
            raise UserError(f"{where}: needs images of {self.CHANNELS} channels {found}.")
        side = self.min_side()
        if min(shape[1:]) < side:
            raise UserError(f"{where}: needs images of at least {side} x {side} pixels {found}.")
