"""Interpolation consistency training: a mixture gets the mixture of what is said of its parts.

V. Verma et al., Interpolation Consistency Training (arXiv 1903.03825, section 2), as in ict.py of
google-research/mixmatch: with g the network of averaged weights, u a weak view of N unlabelled
samples, v the same in reverse order, and shares l of a sample from Beta(alpha, alpha),

    loss = mean CE(y, f(x)) + weight * mean_N,K |softmax f(l u + (1 - l) v) - t|^2,
    t = l softmax g(u) + (1 - l) softmax g(v)

The teacher is in training mode; no gradient flows through it. In that code l is the larger side of
the draw, and each sample has its own; in the authors' one is for a whole batch, and labelled
samples are mixed, too, which is not built. Running statistics come from the labelled samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cyclery.common.lazy import F, torch
from cyclery.methods._mix import correct, guess_passes, mirrored, mixed, shares
from cyclery.methods._ssl import passes
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Interpolation consistency training"


def _ramp() -> Any:
    """Return the code's ramp: over the first 40 % of training, to its value for CIFAR-10."""
    return {"kind": "ramp", "start": 0.0, "end": 1000.0, "over": 0.4, "shape": "linear"}


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; the defaults are the code's for CIFAR-10."""

    weight: Quantity = field(
        default_factory=_ramp, metadata={"doc": "weight of the consistency cost", "low": 0.0}
    )
    alpha: Quantity = field(
        default=0.75, metadata={"doc": "of the Beta(alpha, alpha) that mixes", "low": 0.1}
    )


def streams(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the views of each stream."""
    return {"labelled": ("weak",), "unlabelled": ("weak",)}


def uses_ema(settings: Settings) -> bool:
    """Say that the teacher is the averaged network."""
    return True


# It teaches in training mode.
trains_ema = uses_ema


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its two parts and the accuracy of the teacher are logged."""
    net, unlabelled = models["main"], batch.unlabelled
    q = guess_passes(models["ema"], [unlabelled.x])[0].softmax(1)
    share = shares(row["alpha"], len(unlabelled.y), generator)
    other = mirrored(len(unlabelled.y), unlabelled.x.device)
    u, target = mixed(unlabelled.x, q, share, other)
    z_x, z_u = passes(net, [batch.x, u], "separate", net)
    loss_x, loss_u = F.cross_entropy(z_x, batch.y), F.mse_loss(z_u.softmax(1), target)
    return loss_x + row["weight"] * loss_u, {
        "loss_labelled": loss_x,
        "loss_consistency": loss_u,
        "target_correct": correct(q, unlabelled.y),
    }
