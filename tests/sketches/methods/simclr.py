"""SimCLR: two views of an image attract each other, those of other images repel (NT-Xent).

T. Chen et al. (arXiv 2002.05709), section 2.1: one pass over both views, a projector that is thrown
away, and no labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "SimCLR (sketch)"


@dataclass(frozen=True)
class Settings:
    """Settings of the loss."""

    temperature: Quantity = field(default=0.5, metadata={"doc": "divides cosines", "above": 0.0})
    pool: str = field(default="train", metadata={"doc": "samples that are looked at"})


def streams(settings):
    return {"pairs": Stream(("strong", "strong"), settings.pool)}


def modules(settings, made):
    width = made.width
    return {"projector": torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 16)
    )}  # fmt: skip


def features(models, x, settings):
    h = models["main"].features(x)
    return {"features": h, "z": models["projector"](h)}


def classifies(settings):
    return False


def keeps(settings):
    return ("projector",)


def step(models, batch, row, settings, generator):
    h = models["main"].features(torch.cat(batch["pairs"].views))
    z = F.normalize(models["projector"](h).float())
    n = len(z) // 2
    own = torch.eye(2 * n, dtype=torch.bool, device=z.device)
    s = (z @ z.T / row["temperature"]).masked_fill(own, float("-inf"))
    loss = F.cross_entropy(s, torch.arange(2 * n, device=z.device).roll(n))
    return loss, {"collapse": z.std(0).mean() * z.shape[1] ** 0.5}
