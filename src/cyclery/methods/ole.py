"""OLE: features of a class lie in few dimensions, those of different classes at right angles.

J. Lezama et al., OLE: Orthogonal Low-rank Embedding (CVPR 2018, arXiv 1712.01727), as L. Brigato
et al. (arXiv 2212.12478) compare it. With the features X [N, D] of a batch, X_c its rows of class
c, and the nuclear norm |A|_*, the sum of the singular values of A,

    loss = mean CE + weight / N (sum_c max(delta, |X_c|_*) - |X|_*)

Its gradient is that of the paper: of |A|_* it is U_r V_r' over the singular values that are at
least 1e-6, where the norm has no derivative, too; a class whose norm is not above ``delta`` has
none, so that features do not shrink to nothing.

The public code exposes ``weight`` but computes with 0.25, and its own backward pass overlooks what
the loss is multiplied by; both do here what they say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "OLE"
# A decomposition waits for a GPU, which no CUDA graph can.
CAPTURE = "cpu"
# Smaller singular values count as 0.
SMALLEST = 1e-6


@dataclass(frozen=True)
class Settings:
    """Settings of the penalty; the defaults are the paper's for CIFAR."""

    weight: Quantity = field(default=0.25, metadata={"doc": "of the penalty, lambda", "low": 0.0})
    delta: float = field(
        default=1.0, metadata={"doc": "nuclear norm below which a class is left alone", "low": 0.0}
    )


def penalty(x: torch.Tensor, y: torch.Tensor, delta: float) -> torch.Tensor:
    """Return sum_c max(delta, |X_c|_*) - |X|_* of features x [N, D] over the classes of y [N].

    In float64: of singular values that are 0, rounding in float32 leaves more than 1e-6.
    """
    x = x.double()
    same = (y[:, None] == y).double()
    with torch.no_grad():
        # Of features that are not finite a decomposition fails; what is made with x is NaN anyway.
        products = (x @ x.T).nan_to_num(0.0, 0.0, 0.0)
        # That of a class is a block, so one decomposition is that of all classes.
        both = torch.stack([products * same, products])
        squares, vectors = torch.linalg.eigh(both)
        # Products are exact to their largest value times the precision.
        rounding = len(x) * torch.finfo(x.dtype).eps * squares[:, -1:]
        kept = squares > rounding.clamp(min=SMALLEST**2)
        inverse = torch.where(kept, squares, 1.0).rsqrt() * kept
        # U_r V_r' = U_r S_r^-1 U_r' A.
        of_classes, of_all = (vectors * inverse[:, None]) @ vectors.mT @ x
    by_row = (of_classes * x).sum(1)
    norms = (same * by_row).sum(1)
    # Each row has its share of its class, so that each class counts once.
    bounded = torch.where(norms > delta, norms, delta) / same.sum(1)
    return bounded.sum() - (of_all * x).sum()


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; cross-entropy and penalty are logged."""
    net: Any = models["main"]
    features = net.features(batch.x)
    loss_class = F.cross_entropy(net.head(features).float(), batch.y)
    with torch.autocast(features.device.type, enabled=False):
        loss_low_rank = (penalty(features, batch.y, settings.delta) / len(batch.y)).float()
    loss = loss_class + row["weight"] * loss_low_rank
    return loss, {"loss_class": loss_class, "loss_low_rank": loss_low_rank}
