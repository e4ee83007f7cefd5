"""The settings of every network: torch-free, so that planning can check and document them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from cyclery.errors import UserError

Norm = Literal["batch", "group", "layer"]
Activation = Literal["relu", "leaky", "sigmoid"]
Shortcuts = Literal["activated", "raw"]
Shape = tuple[int, int, int]

_NORM = {
    "doc": "normalisation: batch; group (16 groups, fewer where a group would hold under 4 "
    "channels); layer (one group over channels and pixels)"
}
_NORM_MOMENTUM = {
    "doc": "share of each batch in the running statistics of batch norm (torch's sense: 1 - "
    "TensorFlow's; FixMatch has 0.001)",
    "low": 0,
    "high": 1,
}
_NORM_EPS = {"doc": "what the norms add to the variance", "above": 0}
_ACTIVATION = {"doc": "activation after each norm; leaky has slope 0.1 below 0"}


@dataclass(frozen=True)
class ModelSettings:
    """What all networks share: where they are built and which images they take."""

    FILE: ClassVar[str]
    """Module of this package whose function, named like the network, builds it."""
    MIN_SIDE: ClassVar[int] = 1
    """Smallest image side in pixels."""
    CHANNELS: ClassVar[int | None] = None
    """The only number of image channels, where there is one."""

    def check(self, where: str) -> None:
        """Raise a UserError where values that are fine alone do not fit together."""

    def check_shape(self, shape: Shape, where: str) -> None:
        """Raise a UserError where images of ``shape`` (channels, height, width) do not fit."""
        found = f"(found {shape[0]} channels of {shape[1]} x {shape[2]})"
        if self.CHANNELS not in (None, shape[0]):
            raise UserError(f"{where}: needs images of {self.CHANNELS} channels {found}.")
        if min(shape[1:]) < self.MIN_SIDE:
            raise UserError(
                f"{where}: needs images of at least {self.MIN_SIDE} x {self.MIN_SIDE} pixels "
                f"{found}."
            )


def _check_depth(depth: int, step: int, extra: int, named: str, where: str) -> None:
    """Raise a UserError unless ``depth`` is ``step * n + extra`` with n >= 1."""
    if depth < step + extra or (depth - extra) % step:
        raise UserError(
            f"{where}.depth: must be {step}n + {extra}, such as {named} (found {depth})."
        )


@dataclass(frozen=True)
class BnMlp(ModelSettings):
    """Multi-layer perceptron: linear, batch norm, activation per hidden layer."""

    FILE = "mlp"
    hidden: tuple[int, ...] = field(
        default=(128, 128), metadata={"doc": "units of each hidden layer", "low": 1}
    )
    activation: Activation = field(default="relu", metadata=_ACTIVATION)
    dropout: float = field(
        default=0.0,
        metadata={"doc": "share dropped after each hidden layer", "low": 0, "high": 0.9},
    )
    norm_momentum: float = field(default=0.1, metadata=_NORM_MOMENTUM)
    norm_eps: float = field(default=1e-5, metadata=_NORM_EPS)

    def check(self, where: str) -> None:
        """Raise a UserError where there is no hidden layer."""
        if not self.hidden:
            raise UserError(f"{where}.hidden: must list at least one layer (found []).")


@dataclass(frozen=True)
class SmallCnn(ModelSettings):
    """Three 3x3 convolutions of 1, 2 and 4 times the width, with two poolings between them."""

    FILE = "cnn"
    MIN_SIDE = 4
    width: int = field(default=16, metadata={"doc": "channels of the first convolution", "low": 1})
    norm: Norm = field(default="batch", metadata=_NORM)
    activation: Activation = field(default="relu", metadata=_ACTIVATION)
    dropout: float = field(
        default=0.0, metadata={"doc": "share dropped after each pooling", "low": 0, "high": 0.9}
    )
    norm_momentum: float = field(default=0.1, metadata=_NORM_MOMENTUM)
    norm_eps: float = field(default=1e-5, metadata=_NORM_EPS)


@dataclass(frozen=True)
class ResNet(ModelSettings):
    """CIFAR ResNet (He et al. 2016, section 4.2): widths 16, 32, 64, option A shortcuts."""

    FILE = "resnet"
    depth: int = field(default=20, metadata={"doc": "layers, 6n + 2: 20, 32, 56, 110, ..."})
    norm: Norm = field(default="batch", metadata=_NORM)

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not 6n + 2."""
        _check_depth(self.depth, 6, 2, "20, 32, 56 or 110", where)


@dataclass(frozen=True)
class ResNet18(ModelSettings):
    """ResNet-18 (He et al. 2016) with a stem for small images: one 3x3 convolution, no pooling."""

    FILE = "resnet"
    norm: Norm = field(default="batch", metadata=_NORM)


@dataclass(frozen=True)
class StochasticDepth(ModelSettings):
    """CIFAR ResNet whose blocks are dropped at random in training (Huang et al. 2016)."""

    FILE = "resnet"
    depth: int = field(default=110, metadata={"doc": "layers, 6n + 2: 20, 32, 56, 110, ..."})
    p_last: float = field(
        default=0.5,
        metadata={
            "doc": "survival probability of the last block; it falls linearly from 1",
            "above": 0.0,
            "high": 1.0,
        },
    )

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not 6n + 2."""
        _check_depth(self.depth, 6, 2, "20, 32, 56 or 110", where)


@dataclass(frozen=True)
class WideResNet(ModelSettings):
    """Wide ResNet (Zagoruyko and Komodakis 2016), pre-activation."""

    FILE = "wrn"
    depth: int = field(default=28, metadata={"doc": "layers, 6n + 4: 10, 16, 28, 40, ..."})
    width: int = field(
        default=2, metadata={"doc": "widening factor of 16, 32, 64 channels", "low": 1}
    )
    norm: Norm = field(default="batch", metadata=_NORM)
    dropout: float = field(
        default=0.0,
        metadata={
            "doc": "share dropped between the convolutions of a block",
            "low": 0,
            "high": 0.9,
        },
    )
    activation: Activation = field(default="relu", metadata=_ACTIVATION)
    norm_momentum: float = field(default=0.1, metadata=_NORM_MOMENTUM)
    norm_eps: float = field(default=1e-5, metadata=_NORM_EPS)
    shortcuts: Shortcuts = field(
        default="activated",
        metadata={
            "doc": "what a block's shortcut takes. activated: with a 1x1 convolution the "
            "activated input, else the raw one (the paper); raw: in the very first block the "
            "activated input, else the raw one (the code of MixMatch and FixMatch)"
        },
    )

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not 6n + 4."""
        _check_depth(self.depth, 6, 4, "10, 16, 28 or 40", where)


@dataclass(frozen=True)
class DenseNet(ModelSettings):
    """DenseNet for small images (Huang et al. 2017), with or without bottleneck and compression."""

    FILE = "densenet"
    MIN_SIDE = 4
    depth: int = field(
        default=100, metadata={"doc": "layers, 6n + 4 with bc, else 3n + 4: 40, 100, 190, ..."}
    )
    growth: int = field(default=12, metadata={"doc": "channels that each layer adds", "low": 1})
    bc: bool = field(
        default=True, metadata={"doc": "1x1 bottlenecks, and transitions that halve the channels"}
    )

    def check(self, where: str) -> None:
        """Raise a UserError where the depth does not divide into three blocks."""
        if self.bc:
            _check_depth(self.depth, 6, 4, "40, 100, 190 or 250", f"{where} with bc")
        else:
            _check_depth(self.depth, 3, 4, "40 or 100", f"{where} without bc")


@dataclass(frozen=True)
class AlexNet(ModelSettings):
    """AlexNet of torchvision (Krizhevsky 2014, one column), for large images."""

    FILE = "external"
    MIN_SIDE = 63
    CHANNELS = 3


@dataclass(frozen=True)
class GoogLeNet(ModelSettings):
    """GoogLeNet of torchvision (Szegedy et al. 2015, with batch norm), no auxiliary heads."""

    FILE = "external"
    MIN_SIDE = 32
    CHANNELS = 3


@dataclass(frozen=True)
class TResNetM(ModelSettings):
    """TResNet-M of timm (Ridnik et al. 2021), an optional extra: ``pip install timm``."""

    FILE = "external"
    MIN_SIDE = 32

    def check_shape(self, shape: Shape, where: str) -> None:
        """Raise a UserError where the stem cannot fold the image into blocks of 4 x 4 pixels."""
        super().check_shape(shape, where)
        if shape[1] % 4 or shape[2] % 4:
            raise UserError(
                f"{where}: needs images with sides that are multiples of 4 "
                f"(found {shape[1]} x {shape[2]})."
            )
