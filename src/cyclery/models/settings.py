"""The settings of every network: torch-free, so that planning can check and document them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

from cyclery.common.errors import UserError
from cyclery.models.base import ModelSettings, Shape
from cyclery.models.limits import check_among, check_depth, check_weights, dense_weights

Norm = Literal["batch", "group", "layer"]
NormOrNone = Literal["batch", "group", "layer", "none"]
Activation = Literal["relu", "leaky", "sigmoid"]
Shortcuts = Literal["activated", "raw"]
Widths = Literal["cifar10", "cifar100"]
Blocks = Literal["by_depth", "basic", "bottleneck"]

# Settings that matter in training alone: in evaluation mode they change nothing.
TRAINING_ONLY = ("dropout", "norm_momentum")

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
_WIDTH = {
    "doc": "factor on all numbers of channels and hidden units; 1 is the papers'",
    "above": 0,
    "high": 5,
}


@dataclass(frozen=True)
class BnMlp(ModelSettings):
    """Multi-layer perceptron: linear, batch norm, activation per hidden layer."""

    FILE = "mlp"
    hidden: tuple[int, ...] = field(
        default=(128, 128),
        metadata={"doc": "units of each hidden layer", "low": 1, "high": 100_000},
    )
    activation: Activation = field(default="relu", metadata=_ACTIVATION)
    dropout: float = field(
        default=0.0,
        metadata={"doc": "share dropped after each hidden layer", "low": 0, "high": 0.9},
    )
    norm_momentum: float = field(default=0.1, metadata=_NORM_MOMENTUM)
    norm_eps: float = field(default=1e-5, metadata=_NORM_EPS)

    def check(self, where: str) -> None:
        """Raise a UserError where there is no hidden layer, or too much of them."""
        if not self.hidden:
            raise UserError(f"{where}.hidden: must list at least one layer (found []).")
        check_weights(sum(a * b for a, b in pairwise(self.hidden)), where, "hidden")


@dataclass(frozen=True)
class SmallCnn(ModelSettings):
    """Three 3x3 convolutions of 1, 2 and 4 times the width, with two poolings between them."""

    FILE = "cnn"
    MIN_SIDE = 4
    width: int = field(
        default=16, metadata={"doc": "channels of the first convolution", "low": 1, "high": 1024}
    )
    norm: Norm = field(default="batch", metadata=_NORM)
    activation: Activation = field(default="relu", metadata=_ACTIVATION)
    dropout: float = field(
        default=0.0, metadata={"doc": "share dropped after each pooling", "low": 0, "high": 0.9}
    )
    norm_momentum: float = field(default=0.1, metadata=_NORM_MOMENTUM)
    norm_eps: float = field(default=1e-5, metadata=_NORM_EPS)


@dataclass(frozen=True)
class PlainCnn(ModelSettings):
    """Plain CNN of TAKD (Mirzadeh et al. 2020): 3x3 convolutions with norms, max pooling, linear.

    The last pooling is left out where it would leave less than 2 x 2 pixels.
    """

    FILE = "plain"
    SIZES: ClassVar[tuple[int, ...]] = (2, 4, 6, 8, 10)
    size: int = field(default=2, metadata={"doc": "number of convolutions: 2, 4, 6, 8 or 10"})
    widths: Widths = field(
        default="cifar10",
        metadata={
            "doc": "channels that the paper took for cifar10 or cifar100; those of cifar100 are "
            "twice as many below size 10, and size 6 does not pool its last convolutions"
        },
    )
    width: float = field(default=1.0, metadata=_WIDTH)
    norm: Norm = field(default="batch", metadata=_NORM)

    def check(self, where: str) -> None:
        """Raise a UserError where the paper has no network of that size."""
        check_among(self.size, self.SIZES, f"{where}.size")

    def min_side(self) -> int:
        """Return the side at which no more than the last pooling is left out."""
        return {2: 4, 4: 4, 6: 8}.get(self.size, 16)


@dataclass(frozen=True)
class Vgg(ModelSettings):
    """VGG for small images: five groups of 3x3 convolutions, max pooling after the first groups.

    The defaults are VGG-8 of RepDistiller (Tian et al. 2020). VGG-16 of Stanton et al. (2021) has
    depth 16, norm none, pools 5, hidden 2, dropout 0.5.
    """

    FILE = "vgg"
    DEPTHS: ClassVar[tuple[int, ...]] = (8, 11, 13, 16, 19)
    depth: int = field(default=8, metadata={"doc": "name of the network: 8, 11, 13, 16 or 19"})
    norm: NormOrNone = field(
        default="batch", metadata={"doc": _NORM["doc"] + "; none (convolution and ReLU alone)"}
    )
    pools: int = field(
        default=3,
        metadata={
            "doc": "groups that a 2x2 max pooling follows, from the first on; the mean over the "
            "pixels comes last. RepDistiller: 3, and 4 for images of 64 x 64 pixels",
            "low": 1,
            "high": 5,
        },
    )
    hidden: int = field(
        default=0,
        metadata={
            "doc": "hidden linear layers before the last one, each as wide as the last group and "
            "with ReLU",
            "low": 0,
            "high": 2,
        },
    )
    dropout: float = field(
        default=0.0,
        metadata={"doc": "share dropped before each hidden linear layer", "low": 0, "high": 0.9},
    )
    width: float = field(default=1.0, metadata=_WIDTH)

    def check(self, where: str) -> None:
        """Raise a UserError for an unknown depth, and where dropout would have no place."""
        check_among(self.depth, self.DEPTHS, f"{where}.depth")
        if self.dropout and not self.hidden:
            raise UserError(
                f"{where}.dropout: stands before hidden layers; set hidden to 1 or 2, or dropout "
                f"to 0 (found dropout {self.dropout} with hidden 0)."
            )

    def min_side(self) -> int:
        """Return the side of which the poolings leave one pixel."""
        return int(2**self.pools)


@dataclass(frozen=True)
class ResNet(ModelSettings):
    """CIFAR ResNet (He et al. 2016, section 4.2): widths 16, 32, 64, option A shortcuts."""

    FILE = "resnet"
    depth: int = field(default=20, metadata={"doc": "layers, 6n + 2: 20, 32, 56, 110, ..."})
    norm: Norm = field(default="batch", metadata=_NORM)

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not 6n + 2."""
        check_depth(self.depth, 6, 2, "20, 32, 56 or 110", where)


@dataclass(frozen=True)
class ResNetB(ModelSettings):
    """CIFAR ResNet with option B shortcuts (1x1 convolutions), as in RepDistiller and TAKD."""

    FILE = "resnet"
    depth: int = field(default=20, metadata={"doc": "layers, 6n + 2: 8, 14, 20, 32, 56, 110, ..."})
    widths: tuple[int, int, int, int] = field(
        default=(16, 16, 32, 64),
        metadata={
            "doc": "channels of the first convolution and of the three groups; resnet8x4 and "
            "resnet32x4 have 32, 64, 128, 256",
            "low": 1,
            "high": 10_000,
        },
    )
    norm: Norm = field(default="batch", metadata=_NORM)

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not 6n + 2."""
        check_depth(self.depth, 6, 2, "8, 20, 32, 56 or 110", where)
        squares = sum(width**2 for width in self.widths[1:])
        check_weights((self.depth - 2) * 3 * squares, where, "widths")


@dataclass(frozen=True)
class ResNet18(ModelSettings):
    """ResNet-18 (He et al. 2016) with a stem for small images: one 3x3 convolution, no pooling."""

    FILE = "resnet"
    norm: Norm = field(default="batch", metadata=_NORM)


@dataclass(frozen=True)
class PreResNet(ModelSettings):
    """Pre-activation CIFAR ResNet (He et al. 2016b) as Stanton et al. (2021) build it.

    Their ResNet-20 with layer norm is in no public code; OWN DEFINITION: depth 20 with norm layer.
    """

    FILE = "preresnet"
    depth: int = field(
        default=20,
        metadata={"doc": "layers: 6n + 2 with basic blocks, 9n + 2 with bottlenecks"},
    )
    width: int = field(
        default=16,
        metadata={
            "doc": "channels of the first group; the others have 2 and 4 times",
            "low": 1,
            "high": 10_000,
        },
    )
    blocks: Blocks = field(
        default="by_depth",
        metadata={
            "doc": "basic: two 3x3 convolutions; bottleneck: 1x1, 3x3, 1x1 with 4 times the "
            "channels after the last; by_depth: basic below depth 44, bottleneck from there on"
        },
    )
    norm: Norm = field(default="batch", metadata=_NORM)

    @property
    def bottleneck(self) -> bool:
        """Return whether the blocks are bottlenecks."""
        return self.blocks == "bottleneck" or (self.blocks == "by_depth" and self.depth >= 44)

    def check(self, where: str) -> None:
        """Raise a UserError where the depth is not a whole number of blocks."""
        if self.bottleneck:
            check_depth(self.depth, 9, 2, "47, 56, 110 or 164", f"{where} with bottlenecks")
        else:
            check_depth(self.depth, 6, 2, "20, 32 or 38", f"{where} with basic blocks")
        # Three groups, the channels of which are 1, 2 and 4 times the width.
        per_layer = 17 / 9 if self.bottleneck else 3
        check_weights(int((self.depth - 2) * per_layer * 21 * self.width**2), where, "width")


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
        check_depth(self.depth, 6, 2, "20, 32, 56 or 110", where)


@dataclass(frozen=True)
class WideResNet(ModelSettings):
    """Wide ResNet (Zagoruyko and Komodakis 2016), pre-activation."""

    FILE = "wrn"
    depth: int = field(default=28, metadata={"doc": "layers, 6n + 4: 10, 16, 28, 40, ..."})
    width: int = field(
        default=2,
        metadata={"doc": "widening factor of 16, 32, 64 channels", "low": 1, "high": 1000},
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
        check_depth(self.depth, 6, 4, "10, 16, 28 or 40", where)
        check_weights((self.depth - 4) * 3 * 21 * (16 * self.width) ** 2, where, "width")


@dataclass(frozen=True)
class DenseNet(ModelSettings):
    """DenseNet for small images (Huang et al. 2017), with or without bottleneck and compression."""

    FILE = "densenet"
    MIN_SIDE = 4
    depth: int = field(
        default=100, metadata={"doc": "layers, 6n + 4 with bc, else 3n + 4: 40, 100, 190, ..."}
    )
    growth: int = field(
        default=12, metadata={"doc": "channels that each layer adds", "low": 1, "high": 1000}
    )
    bc: bool = field(
        default=True, metadata={"doc": "1x1 bottlenecks, and transitions that halve the channels"}
    )

    def check(self, where: str) -> None:
        """Raise a UserError where the depth does not divide into three blocks."""
        if self.bc:
            check_depth(self.depth, 6, 4, "40, 100, 190 or 250", f"{where} with bc")
        else:
            check_depth(self.depth, 3, 4, "40 or 100", f"{where} without bc")
        layers = (self.depth - 4) // (2 if self.bc else 1)
        check_weights(dense_weights(layers, self.growth, self.bc), where, "growth")


@dataclass(frozen=True)
class AlexNet(ModelSettings):
    """AlexNet of torchvision (Krizhevsky 2014, one column), for large images."""

    FILE = "external"
    MIN_SIDE = 63
    CHANNELS = 3

    @property
    def batch_norm(self) -> bool:
        """Return False: this network has no norms."""
        return False


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
