"""What networks are made of, and what can be done to any of them; this imports torch.

Norms, activations, noise, convolutions, initial weights; running statistics and modes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import gcd
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from cyclery.models._settings import Activation, Norm, Pooling

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C", bound=nn.Conv2d)


class Noise(nn.Module):
    """A module that draws random numbers in training.

    They come from ``generator``, or from torch's own generator of the device where it is None.
    """

    generator: torch.Generator | None = None

    def mask(self, like: Tensor, share: float) -> Tensor:
        """Return a new tensor like another, of 1 with the probability ``share`` and else 0."""
        return torch.empty_like(like).bernoulli_(share, generator=self.generator)


class Dropout(Noise):
    """Dropout of single elements, like ``nn.Dropout`` but with a generator of its own."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with a share p set to 0 and the rest scaled up; in evaluation just x."""
        if not self.training or self.p == 0:
            return x
        return x * self.mask(x, 1 - self.p).div_(1 - self.p)


def use_generator(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all noise in ``model`` from ``generator``, which must live on the model's device.

    Runs that share a process need it: one generator for all would let neighbours change a run.
    """
    for module in model.modules():
        if isinstance(module, Noise):
            module.generator = generator


def batch_norms(net: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a network."""
    return [module for module in net.modules() if isinstance(module, _BatchNorm)]


def convolves(net: nn.Module) -> bool:
    """Return whether a network has a convolution."""
    return any(isinstance(module, _ConvNd) for module in net.modules())


def keep_statistics(net: nn.Module) -> None:
    """Make batch norm leave its buffers alone for good, all of them; evaluation reads them as ever.

    In train mode it still normalises by the statistics of the batch: the network of averaged
    weights, whose buffers are another's or an average.
    """
    for norm in batch_norms(net):
        norm.track_running_stats = False


@contextmanager
def statistics_kept(net: nn.Module) -> Iterator[None]:
    """Inside, batch norm of ``net`` leaves its buffers alone, as after ``keep_statistics``.

    For further passes of one update, of which only one may move the running statistics. It sets
    attributes and runs nothing on the device, so it may stand in a captured or compiled step.
    """
    before = [(norm, norm.track_running_stats) for norm in batch_norms(net)]
    keep_statistics(net)
    try:
        yield
    finally:
        for norm, tracked in before:
            norm.track_running_stats = tracked


@contextmanager
def uncompiled(net: nn.Module) -> Iterator[None]:
    """Inside, a network that is compiled runs as it was written, as ``torch.func`` wants it."""
    compiled = net._compiled_call_impl
    if compiled is None:
        yield
        return
    net._compiled_call_impl = None
    try:
        yield
    finally:
        net._compiled_call_impl = compiled


@contextmanager
def evaluating(*nets: nn.Module) -> Iterator[None]:
    """Inside, networks are in evaluation mode; afterwards each module is in its own mode again."""
    before = [(module, module.training) for net in nets for module in net.modules()]
    for net in nets:
        net.eval()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def share_buffers(to: nn.Module, source: nn.Module) -> None:
    """Make each buffer of ``to`` the very tensor that ``source`` has under the same name.

    What changes one in place then changes both. Copying or moving a network ends it: share last.
    Raises an AttributeError where ``source`` has no module or buffer of a name.
    """
    for path, module in to.named_modules():
        for name, _ in module.named_buffers(recurse=False):
            setattr(module, name, source.get_submodule(path).get_buffer(name))


class Bias(nn.Module):
    """A bias for each channel, where there is no norm that would have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C] or maps [B, C, H, W] with the bias added."""
        return x + self.bias.view(-1, *[1] * (x.ndim - 2))


def norm_2d(kind: Norm, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> nn.Module:
    """Return the normalisation of maps [B, channels, H, W]; ``momentum`` is batch norm's.

    ``group`` has the 16 groups of De et al. (2022), but fewer where a group would hold under four
    channels: the norm of one channel on a few pixels would erase most of what it carries. With
    ``group_ws`` it is the same norm: the convolutions are others (``standardised.standardise``).
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps, momentum)
    return _batchless(kind, channels, eps)


def norm_1d(kind: Norm, units: int, momentum: float = 0.1, eps: float = 1e-5) -> nn.Module:
    """Return the normalisation of vectors [B, units], as ``norm_2d`` is that of maps."""
    if kind == "batch":
        return nn.BatchNorm1d(units, eps, momentum)
    return _batchless(kind, units, eps)


def _batchless(kind: Norm, channels: int, eps: float) -> nn.Module:
    if kind == "none":
        return Bias(channels)
    groups = 1 if kind == "layer" else gcd(16, max(channels // 4, 1))
    return nn.GroupNorm(groups, channels, eps)


def activation(kind: Activation) -> nn.Module:
    """Return a new activation module."""
    kinds: dict[Activation, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "leaky": partial(nn.LeakyReLU, 0.1),
        "sigmoid": nn.Sigmoid,
    }
    return kinds[kind]()


def conv_3x3(inputs: int, outputs: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size up to its stride; the norm has the bias."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


def conv_1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


def conv_like(kind: type[C], conv: nn.Conv2d, bias: bool) -> C:
    """Return a convolution of some kind with the shape of another one, and new weights."""
    return kind(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        bias,
    )


def reflected(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Return ``x`` with so many entries mirrored about its first and last one along ``dim``.

    Slices, for the backward pass of torch's reflection padding is not deterministic on CUDA.
    """
    size = x.shape[dim]
    first = x.narrow(dim, 1, before).flip(dim)
    last = x.narrow(dim, size - 1 - after, after).flip(dim)
    return torch.cat((first, x, last), dim)


def scaled(count: int, factor: float) -> int:
    """Return a number of channels or units times ``factor``, at least 1."""
    return max(1, round(count * factor))


def initialise(model: M) -> M:
    """Return ``model``, its convolutions initialised from N(0, 2 / (outputs x kernel size)).

    As He et al. (2015) and WRN do. Their biases, where they have any, start at 0. Linear layers
    and norms keep what torch gives them.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


class Pool(nn.Module):
    """The mean over the pixels, [B, C, H, W] -> [B, C].

    Not ``adaptive_avg_pool2d``, whose backward pass is not deterministic on CUDA.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled maps [B, C]."""
        return x.mean((2, 3))


class MaxPool(nn.Module):
    """The largest of the pixels, [B, C, H, W] -> [B, C]; of equal ones all share the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled maps [B, C]."""
        return x.amax((2, 3))


def global_pool(kind: Pooling) -> nn.Module:
    """Return what makes one number of all pixels of a map."""
    return MaxPool() if kind == "max" else Pool()
