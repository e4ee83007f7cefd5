"""MoCo with a margin, the first stage of Distilling Visual Priors (arXiv 2008.00261, section 2).

Keys of past updates are the negatives (K. He et al., arXiv 1911.05722); an average makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream

VERSION, TITLE = 1, "MoCo (sketch)"
uses_ema = trains_ema = lambda settings: True
averages = classifies = lambda settings: False


@dataclass(frozen=True)
class Settings:
    """Settings of the loss."""

    keys: int = field(default=64, metadata={"doc": "that are remembered", "low": 1})
    margin: float = field(default=0.6, metadata={"doc": "taken off the positive", "low": 0})
    temperature: float = field(default=0.07, metadata={"doc": "divides cosines", "above": 0})


def streams(settings):
    return {"pairs": Stream(("strong", "strong"))}


def modules(settings, made):
    queue, width = torch.nn.Module(), made.width
    queue.register_buffer("keys", F.normalize(torch.randn(settings.keys, 16)))
    queue.register_buffer("slot", torch.zeros(1, dtype=torch.int64))
    layers = torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 16)
    return {"projector": torch.nn.Sequential(*layers), "queue": queue}


def step(models, batch, row, settings, generator):
    first, second = batch["pairs"].views
    q = F.normalize(models["projector"](models["main"].features(first)).float())
    with torch.no_grad():
        k = F.normalize(models["ema.projector"](models["ema"].features(second)).float())
    queue = models["queue"]
    positive = (q * k).sum(1, keepdim=True) - settings.margin
    # A copy, for the backward pass needs the keys that are overwritten now.
    z = torch.cat([positive, q @ queue.keys.clone().T], 1) / settings.temperature
    slots = (queue.slot + torch.arange(len(k), device=k.device)).remainder(settings.keys)
    queue.keys.index_copy_(0, slots, k)
    queue.slot.copy_(slots[-1:] + 1)
    return F.cross_entropy(z, torch.zeros(len(z), dtype=torch.int64, device=z.device)), {}
