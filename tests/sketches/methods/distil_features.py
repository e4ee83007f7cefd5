"""Distilling Visual Priors: features stay near those of a parent, from which the network starts.

B. Zhao and X. Wen (arXiv 2008.00261), stage 2, on the last features alone, through a connector.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION, TITLE = 1, "Distilling visual priors (sketch)"


@dataclass(frozen=True)
class Settings:
    """Settings of the loss."""

    weight: Quantity = field(default=0.1, metadata={"doc": "of the distance", "low": 0.0})


def parents(settings):
    return ("prior",)


def modules(settings, made):
    width = made.width
    return {"connector": torch.nn.Sequential(
        torch.nn.Linear(width, width, bias=False), torch.nn.BatchNorm1d(width)
    )}  # fmt: skip


def step(models, batch, row, settings, generator):
    h = models["main"].features(batch.x)
    distance = models["connector"](h).float() - models["prior"].features(batch.x)
    loss = F.cross_entropy(models["main"].head(h).float(), batch.y)
    return loss + row["weight"] * distance.square().sum(1).mean(), {"loss_labelled": loss}
