"""ProxyNCA++: samples are near the proxy of their class (E. W. Teh et al., arXiv 2004.01113).

Section 3: the probability over all proxies, at a low temperature, with proxies that move fast
(``rates: {proxies: ...}``) and batches of a few classes with as many samples of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream

VERSION, TITLE = 1, "ProxyNCA++ (sketch)"


@dataclass(frozen=True)
class Settings:
    """Settings of batches and distances."""

    scale: float = field(default=3.0, metadata={"doc": "length of what is compared", "above": 0.0})
    classes: int = field(default=5, metadata={"doc": "of a batch", "low": 2})


def streams(settings):
    return {"labelled": Stream(("weak",), sampler="balanced", classes=settings.classes)}


def modules(settings, made):
    proxies = torch.nn.Module()
    proxies.weight = torch.nn.Parameter(torch.randn(made.classes, made.width) / 8)
    norm = torch.nn.LayerNorm(made.width, elementwise_affine=False)
    return {"proxies": proxies, "embedding": torch.nn.Sequential(
        norm, torch.nn.Linear(made.width, made.width)
    )}  # fmt: skip


def features(models, x, settings):
    return {"features": models["embedding"](models["main"].features(x))}


def keeps(settings):
    return ("proxies", "embedding")


def predict(models, x, settings):
    x = settings.scale * F.normalize(features(models, x, settings)["features"].float())
    proxies = settings.scale * F.normalize(models["proxies"].weight)
    return -(x[:, None] - proxies).square().sum(2)


def step(models, batch, row, settings, generator):
    return F.cross_entropy(predict(models, batch.x, settings), batch.y), {}
