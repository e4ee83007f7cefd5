"""UDA: a strong view must have the sharpened prediction of a weak one; signals are annealed.

Q. Xie et al. (arXiv 1904.12848), sections 2 and 3: labelled samples whose probability is above a
rising threshold are left out, unlabelled ones count where the prediction is confident.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F
from cyclery.methods._ssl import passes
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "UDA (sketch)"


@dataclass(frozen=True)
class Settings:
    """Settings of the loss."""

    release: Quantity = field(
        default=1.0, metadata={"doc": "a in the threshold 1/K + a (1 - 1/K)", "low": 0.0, "high": 1}
    )
    weight: Quantity = field(default=1.0, metadata={"doc": "of the unlabelled loss", "low": 0.0})
    confidence: float = field(default=0.8, metadata={"doc": "above which a sample counts"})
    temperature: float = field(default=0.4, metadata={"doc": "sharpens targets", "above": 0.0})


def streams(settings):
    return {"labelled": ("weak",), "unlabelled": ("weak", "strong")}


def step(models, batch, row, settings, generator):
    z, weak, strong = passes(models["main"], [batch.x, *batch.unlabelled.views], "joint")
    costs, least = F.cross_entropy(z, batch.y, reduction="none"), 1 / z.shape[1]
    threshold = least + row["release"] * (1 - least)
    kept = ((-costs.detach()).exp() <= threshold).to(z.dtype)
    loss_x = (kept * costs).sum() / kept.sum().clamp_min(1)
    weak = weak.detach()
    mask = (weak.softmax(1).amax(1) > settings.confidence).to(z.dtype)
    target = (weak / settings.temperature).softmax(1)
    kl = F.kl_div(strong.log_softmax(1), target, reduction="none").sum(1)
    loss_u = (mask * kl).mean()
    logs = {"threshold": threshold, "kept": kept.mean(), "mask_rate": mask.mean()}
    return loss_x + row["weight"] * loss_u, logs
