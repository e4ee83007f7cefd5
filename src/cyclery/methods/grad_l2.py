"""Grad-L2: the gradient of each image's loss with respect to its pixels is kept small.

A. Bietti et al., A Kernel Perspective for Regularizing Deep Neural Networks (arXiv
1810.00363), as L. Brigato et al. (arXiv 2212.12478) compare it. With the cross-entropy l_i of image
x_i, of n in a batch,

    loss = mean l_i + weight mean |d (sum_j l_j) / d x_i|^2

trained through the gradient. It is taken in a pass of its own, in training mode: under batch norm
each image then has a part in the losses of the others. Whether that pass moves running statistics
as well is ``statistics``. Without batch norm, the public code's option, is ``norm: none`` of a
network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Gradient penalty"


@dataclass(frozen=True)
class Settings:
    """Settings of the penalty."""

    weight: Quantity = field(default=0.01, metadata={"doc": "of the penalty", "low": 0.0})
    statistics: Literal["once", "twice"] = field(
        default="once",
        metadata={
            "doc": "how often an update moves running statistics: `once`; `twice`, as in the "
            "public code, whose second pass moves them again"
        },
    )


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass the network: each twice."""
    return 2 * sum(images.values())


@contextmanager
def moved_twice(net: torch.nn.Module) -> Iterator[None]:
    """Inside, one pass moves running statistics as far as two over the same batch do."""
    from cyclery.models.layers import batch_norms

    before = [(norm, norm.momentum) for norm in batch_norms(net)]
    for norm, momentum in before:
        if momentum is not None:  # None is the mean of all batches
            norm.momentum = 2 * momentum - momentum**2
    try:
        yield
    finally:
        for norm, momentum in before:
            norm.momentum = momentum


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; cross-entropy and penalty are logged."""
    from cyclery.models.layers import statistics_kept, uncompiled

    net = models["main"]

    def total(x: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(net(x).float(), batch.y, reduction="sum")

    with moved_twice(net) if settings.statistics == "twice" else nullcontext():
        loss_class = F.cross_entropy(net(batch.x).float(), batch.y)
    # The graph of the gradient is kept, unlike that of `by_input`.
    with statistics_kept(net), uncompiled(net):
        slopes = torch.func.grad(total)(batch.x)
    penalty = slopes.flatten(1).square().sum(1).mean()
    return loss_class + row["weight"] * penalty, {"loss_class": loss_class, "penalty": penalty}
