"""Grad-L2: the gradient of the loss with respect to the pixels is kept small.

A. Bietti et al. (arXiv 1810.00363), as in L. Brigato et al. (arXiv 2212.12478): a second pass on
images of which the gradient is taken, and whose squared norm is trained through.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION, TITLE = 1, "Gradient penalty (sketch)"


@dataclass(frozen=True)
class Settings:
    """Settings of the penalty."""

    weight: Quantity = field(default=0.01, metadata={"doc": "of the penalty", "low": 0.0})


def forwards(settings, images):
    return 2 * sum(images.values())


def step(models, batch, row, settings, generator):
    loss = F.cross_entropy(models["main"](batch.x).float(), batch.y)
    images = batch.x.detach().requires_grad_()
    each = F.cross_entropy(models["main"](images).float(), batch.y, reduction="sum")
    [slopes] = torch.autograd.grad(each, images, create_graph=True)
    penalty = slopes.flatten(1).square().sum(1).mean()
    return loss + row["weight"] * penalty, {"penalty": penalty}
