"""DP-SGD: the gradient of each sample, over K views, is clipped to norm 1, and noise is added.

S. De et al. (arXiv 2204.13650), section 2. Epsilon is exact for whole Renyi orders of the sampled
Gaussian (I. Mironov et al., arXiv 1908.10530, section 3.3; arXiv 2004.00010, proposition 12).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import log

from cyclery.common.lazy import F, torch
from cyclery.methods import Gradients, Stream
from cyclery.methods._gradients import per_example
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "DP-SGD (sketch)"


@dataclass(frozen=True)
class Settings:
    noise: Quantity = field(default=1.0, metadata={"doc": "its deviation", "above": 0.0})
    views: int = field(default=4, metadata={"doc": "views of a sample", "low": 1})
    delta: float = field(default=1e-5, metadata={"doc": "of epsilon", "above": 0.0, "below": 1})


def streams(settings):
    return {"labelled": Stream(("weak",) * settings.views, sampler="poisson")}


def step(models, batch, row, settings, generator):
    def loss(net, x, y):
        return F.cross_entropy(net(x), y.expand(len(x)))

    s = batch.labelled
    each, costs = per_example(models["main"], loss, torch.stack(s.views, 1), s.y)
    share = s.mask / sum(g.flatten(1).square().sum(1) for g in each.values()).sqrt().clamp_min(1)
    found = {f"main.{name}": torch.tensordot(share, g, 1) for name, g in each.items()}
    for g in found.values():
        g.add_(torch.empty_like(g).normal_(generator=generator) * row["noise"]).div_(s.expected)
    return Gradients((costs * s.mask).sum() / s.expected, found), {}


def measures(settings):
    return ("train_epsilon",)


def evaluate(models, measured, settings):
    rates = measured.history("batch") / len(measured.pool("train"))
    k = torch.arange(256, dtype=torch.float64)
    a = k[2:, None]
    ways = (a + 1).lgamma() - (k + 1).lgamma() - (a - k + 1).lgamma()
    spent = (-1 / a).log1p() - (a * settings.delta).log() / (a - 1)
    for (q, noise), n in Counter(zip(rates, measured.history("noise"), strict=True)).items():
        parts = ways + (a - k) * log(1 - q) + k * log(q) + (k * k - k) / (2 * noise**2)
        spent += n * parts.logsumexp(1, True) / (a - 1)
    return {"train_epsilon": spent.min().item()}
