"""Supervised cross-entropy with a softmax temperature.

L. N. Smith, General Cyclical Training of Neural Networks (arXiv 2202.08835): the instances that
leave the loss alone (cyclical weight decay, gradient clipping, batch size, augmentation) and
cyclical softmax temperature, as in the official code: the training logits are divided by T and
the loss is not rescaled by T^2, so the gradient scales with 1/T; evaluation uses raw logits.
With temperature 1 this is also the plain baseline of every other paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Supervised cross-entropy"


@dataclass(frozen=True)
class Settings:
    """Settings of the loss."""

    label_smoothing: float = field(
        default=0.0,
        metadata={"doc": "probability spread evenly over all classes", "low": 0.0, "high": 1.0},
    )
    temperature: Quantity = field(
        default=1.0, metadata={"doc": "divides the training logits", "above": 0.0}
    )


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the mean cross-entropy of ``logits / T`` over the batch; nothing else is logged."""
    logits = models["main"](batch.x).float() / row["temperature"]
    return F.cross_entropy(logits, batch.y, label_smoothing=settings.label_smoothing), {}
