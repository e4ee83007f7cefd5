"""The losses of DSK-Net: of the positive class, by cosine, and of learnt centres.

P. Sun et al., A Visual Inductive Priors Framework for Data-Efficient Image Classification (ECCV
workshops 2020), as read and rebuilt by L. Brigato et al., Image Classification with Small Datasets
(IEEE Access 2022, arXiv 2212.12478; code, GEM). With an added linear layer f = g(h) on features h,
logits z = head(f), and a centre c_k of each class k,

    loss = mean [-log sigma(z_y)] + mean [1 - z_y / |z|] + weight mean [2 - 2 cos(f, c_y)]

The centres are no parameters of the run's optimiser: after each update they make a step of plain
SGD of their own, without momentum, decay or schedule, down the last mean without its weight. Here
that gradient is in closed form, and the step is of the same update. ``centre_weight: 0`` is, as in
the code, a network without g.

The blocks of DSK-Net are a setting of networks: ``blocks: dual_selective_kernel``. The paper leaves
open what its positive class loss is; the first term is the benchmark's reading of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cyclery.common.lazy import F, torch
from cyclery.methods._projection import projected
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Losses of DSK-Net"


@dataclass(frozen=True)
class Settings:
    """Settings of the losses; the defaults are the benchmark's."""

    centre_weight: float = field(
        default=0.5,
        metadata={
            "doc": "weight of the distance to centres; 0: neither centres nor the added layer",
            "low": 0.0,
        },
    )
    centre_rate: Quantity = field(
        default=0.5, metadata={"doc": "learning rate of the centres", "low": 0.0}
    )


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that nothing reads beside the others."""
    return {} if settings.centre_weight else {"centre_rate": "centre_weight: 0"}


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the added layer, as ``projector``, and the centres, which are memory."""
    if not settings.centre_weight:
        return {}
    centres = torch.nn.Module()
    projector = torch.nn.Linear(made.width, made.width)
    centres.register_buffer("centres", torch.randn(made.classes, made.width))
    return {"projector": projector, "centres": centres}


def keeps(settings: Settings) -> tuple[str, ...]:
    """Return what is handed on beside the network."""
    return ("projector",) if settings.centre_weight else ()


def predict(
    models: dict[str, torch.nn.Module], x: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """Return the logits [B, K] of images: those of the added layer's outputs."""
    return _logits(models, x, settings)[0]


def features(
    models: dict[str, torch.nn.Module], x: torch.Tensor, settings: Settings
) -> dict[str, torch.Tensor]:
    """Return h as ``features``, and, where there is the added layer, its outputs as ``z``."""
    net: Any = models["main"]
    return projected(models, x) if settings.centre_weight else {"features": net.features(x)}


def _logits(
    models: dict[str, torch.nn.Module], x: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits [B, K], and the vectors [B, D] of which the head makes them."""
    net: Any = models["main"]
    vectors = features(models, x, settings)["z" if settings.centre_weight else "features"]
    return net.head(vectors), vectors


def positive_and_cosine(z: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of -log sigma(z_y), and of 1 - z_y / |z|, of logits z [B, K]."""
    own = z.gather(1, y[:, None])
    cosine = F.normalize(z).gather(1, y[:, None])
    return -F.logsigmoid(own).mean(), (1 - cosine).mean()


def centre_loss(
    f: torch.Tensor, y: torch.Tensor, centres: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of 2 - 2 cos(f, c_y) over vectors f [B, D], and its gradient by c [K, D].

    No gradient of the first flows to the centres. Those of classes that are not there get zeros.
    """
    towards, unit = F.normalize(f), F.normalize(centres)
    shown = (y[:, None] == torch.arange(len(centres), device=y.device)).to(unit.dtype)
    own = shown @ unit
    cosine = (towards * own).sum(1)
    with torch.no_grad():
        # The part of f / |f| that is orthogonal to the centre turns it; its length does nothing.
        turn = shown.t() @ (towards - cosine[:, None] * own)
        gradient = turn * (-2 / len(f)) / centres.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return (2 - 2 * cosine).mean(), gradient


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss, and its parts, which are logged; centres move."""
    logits, vectors = _logits(models, batch.x, settings)
    positive, cosine = positive_and_cosine(logits.float(), batch.y)
    loss, logs = positive + cosine, {"loss_positive": positive, "loss_cosine": cosine}
    if settings.centre_weight:
        centres = models["centres"].get_buffer("centres")
        distance, gradient = centre_loss(vectors.float(), batch.y, centres)
        centres.sub_(row["centre_rate"] * gradient)
        loss = loss + settings.centre_weight * distance
        logs["loss_centre"] = distance
    return loss, logs
