"""Cosine loss: the angle between a network's answer and the right class' axis, alone or with CE.

B. Barz, J. Denzler, Deep Learning on Small Datasets without Pre-Training using Cosine Loss (WACV
2020, arXiv 1901.09054), as L. Brigato et al. (arXiv 2212.12478) compare it. With
logits z and u = z / |z|,

    loss = mean (1 - u_y) + weight mean CE(y, g(u)),   g(u) = W norm(relu(u)) + b

where g is a head of its own, from classes to classes, with batch norm. It classifies where there is
one; with a ``weight`` of 0 there is none, and the largest logit does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cyclery.common.lazy import F, torch

VERSION = 1
TITLE = "Cosine loss"


@dataclass(frozen=True)
class Settings:
    """Settings of the loss."""

    weight: float = field(
        default=0.0,
        metadata={
            "doc": "of the cross-entropy, 0.1 in the first paper; 0 leaves it and its head out",
            "low": 0.0,
        },
    )


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the head of the cross-entropy, if there is one."""
    if not settings.weight:
        return {}
    nn, classes = torch.nn, made.classes
    layers = (nn.ReLU(), nn.BatchNorm1d(classes), nn.Linear(classes, classes))
    return {"classifier": nn.Sequential(*layers)}


def units(models: dict[str, torch.nn.Module], x: torch.Tensor) -> torch.Tensor:
    """Return the logits [B, K] of images as vectors of length 1."""
    return F.normalize(models["main"](x).float())


def predict(
    models: dict[str, torch.nn.Module], x: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """Return the logits [B, K] of the head that classifies."""
    if not settings.weight:
        found: torch.Tensor = models["main"](x)
        return found
    logits: torch.Tensor = models["classifier"](units(models, x))
    return logits


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its parts are logged."""
    u = units(models, batch.x)
    loss = loss_cosine = (1 - u.gather(1, batch.y[:, None])).mean()
    logs = {"loss_cosine": loss_cosine}
    if settings.weight:
        logits = models["classifier"](u).float()
        logs["loss_class"] = F.cross_entropy(logits, batch.y)
        loss = loss + settings.weight * logs["loss_class"]
    return loss, logs
