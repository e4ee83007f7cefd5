"""What the networks share: norms, activations, noise, initial weights, the classifier's shape."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

import torch
from torch import Tensor, nn

from cyclery.models.settings import Activation, Norm


class Classifier(nn.Module):
    """A network in two parts: ``features`` [B, C, H, W] -> [B, D] and the linear ``head``."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the feature vectors [B, D] of images [B, C, H, W]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes] of images [B, C, H, W]."""
        logits: Tensor = self.head(self.features(x))
        return logits


class Noise(nn.Module):
    """A module that draws random numbers in training.

    They come from ``generator``, or from torch's own generator of the device where it is None.
    """

    generator: torch.Generator | None = None


class Dropout(Noise):
    """Dropout of single elements, like ``nn.Dropout`` but with a generator of its own."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with a share p set to 0 and the rest scaled up; in evaluation just x."""
        if not self.training or self.p == 0:
            return x
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * kept.div_(1 - self.p)


def use_generator(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all noise in ``model`` from ``generator``, which must live on the model's device.

    Runs that share a process need it: one generator for all would let neighbours change a run.
    """
    for module in model.modules():
        if isinstance(module, Noise):
            module.generator = generator


def norm_2d(kind: Norm, channels: int) -> nn.Module:
    """Return the normalisation of maps [B, channels, H, W].

    ``group`` has the 16 groups of De et al. (2022), but fewer where a group would hold under four
    channels: the norm of one channel on a few pixels would erase most of what it carries.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(gcd(16, max(channels // 4, 1)) if kind == "group" else 1, channels)


def activation(kind: Activation) -> nn.Module:
    """Return a new activation module."""
    kinds: dict[Activation, Callable[[], nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}
    return kinds[kind]()


def conv_3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size up to its stride; the norm has the bias."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def conv_1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


def initialise(model: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / (outputs x kernel size)), as He et al. (2015) and WRN do.

    Linear layers and norms keep what torch gives them.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def pool(x: Tensor) -> Tensor:
    """Return the mean over the pixels, [B, C, H, W] -> [B, C].

    Not ``adaptive_avg_pool2d``, whose backward pass is not deterministic on CUDA.
    """
    return x.mean((2, 3))
