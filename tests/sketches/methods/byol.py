"""BYOL: an online network predicts what a slowly moving average of it says of another view.

J.-B. Grill et al. (arXiv 2006.07733), section 3: each network has a pass for each view.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream

VERSION = 1
TITLE = "BYOL (sketch)"


@dataclass(frozen=True)
class Settings:
    """Settings of the heads."""

    pool: str = field(default="train", metadata={"doc": "samples that are looked at"})
    hidden: int = field(default=64, metadata={"doc": "units of projector and predictor"})


streams = lambda settings: {"pairs": Stream(("t", "t_prime"), settings.pool)}  # noqa: E731
uses_ema = trains_ema = lambda settings: True
averages = classifies = lambda settings: False
measures = lambda settings: ("test_collapse",)  # noqa: E731


def modules(settings, made):
    def head(width):
        return torch.nn.Sequential(
            torch.nn.Linear(width, settings.hidden), torch.nn.BatchNorm1d(settings.hidden),
            torch.nn.ReLU(), torch.nn.Linear(settings.hidden, 16, bias=False),
        )  # fmt: skip

    return {"projector": head(made.width), "predictor": head(16)}


def step(models, batch, row, settings, generator):
    p = [models["predictor"](projected(models, x)) for x in batch["pairs"].views]
    with torch.no_grad():
        z = [projected(models, x, "ema", "ema.projector") for x in batch["pairs"].views]
    cosines = [F.cosine_similarity(*each).mean() for each in zip(p, reversed(z), strict=True)]
    return 4 - 2 * sum(cosines), {"collapse": collapse(z[0])}


def projected(models, x, net="main", projector="projector"):
    return models[projector](models[net].features(x)).float()


def collapse(z):
    return F.normalize(z).std(0).mean() * z.shape[1] ** 0.5


def evaluate(models, measured, settings):
    z = measured.outputs(lambda x: projected(models, x), measured.pool("test"))
    return {"test_collapse": float(collapse(z))}
