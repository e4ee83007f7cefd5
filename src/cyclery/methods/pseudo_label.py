"""Pseudo-Label: the likeliest class of a confident prediction is its label.

D.-H. Lee, Pseudo-Label (ICML 2013 workshop), with the settings with which google-research/fixmatch
compares: with z the logits of one weak view of N unlabelled samples,

    loss = mean CE(y, z_x) + weight / N sum_b 1[max softmax(z_b) > threshold] CE(argmax z_b, z_b)

The gradient flows through the prediction only. What is masked out counts in the divisor. (That code
multiplies losses [N] by a mask [N, 1], which averages the two apart: mean mask times mean loss.)
The unlabelled samples pass the network by themselves and leave its running statistics alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cyclery.common.lazy import F, torch
from cyclery.methods._ssl import Forward, Statistics, check_passes, passes, pseudo_figures
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Pseudo-Label"


def _ramp() -> Any:
    """Return the code's ramp over the first 40 % of training."""
    return {"kind": "ramp", "start": 0.0, "end": 1.0, "over": 0.4, "shape": "linear"}


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; the defaults are those of the code."""

    threshold: Quantity = field(
        default=0.95,
        metadata={"doc": "confidence above which a pseudo-label is used", "low": 0.0, "high": 1.0},
    )
    weight: Quantity = field(
        default_factory=_ramp, metadata={"doc": "weight of the unlabelled loss", "low": 0.0}
    )
    forward: Forward = field(
        default="separate",
        metadata={"doc": "one pass over both streams, or one each with its own batch statistics"},
    )
    statistics: Statistics = field(
        default="labelled",
        metadata={"doc": "passes that update running statistics; `labelled` needs separate ones"},
    )

    def __post_init__(self) -> None:
        check_passes(self.forward, self.statistics)


def streams(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the views of each stream."""
    return {"labelled": ("weak",), "unlabelled": ("weak",)}


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its two parts and figures of the pseudo-labels are logged."""
    net, unlabelled = models["main"], batch.unlabelled
    keep = net if settings.statistics == "labelled" else None
    z_x, z_u = passes(net, [batch.x, unlabelled.x], settings.forward, keep)
    confidence, labels = z_u.detach().softmax(1).max(1)
    mask = (confidence > row["threshold"]).to(z_u.dtype)
    loss_x = F.cross_entropy(z_x, batch.y)
    loss_u = (F.cross_entropy(z_u, labels, reduction="none") * mask).mean()
    return loss_x + row["weight"] * loss_u, {
        "loss_labelled": loss_x,
        "loss_unlabelled": loss_u,
        **pseudo_figures(mask, labels, unlabelled.y, z_x.shape[1]),
    }
