"""Cyclical focal loss, its special cases and its controls.

L. N. Smith, Cyclical Focal Loss (arXiv 2202.08978), from the official code lnsmith54/CFL:

    w_lc[k] = (1 - p_k)^gamma_pos for k = y, p_k^gamma_neg else   (low confidence, hard)
    w_hc[k] = (1 + p_k)^gamma_hc  for k = y, 1 else               (high confidence, easy)
    w = (1 - eta) w_lc + eta w_hc,   loss = mean of - sum_k q_k w_k log p_k

with q the target smoothed after the weights are formed from the hard label. Gradients flow
through the weights. eta is the cycle of General Cyclical Training: 1 at both ends, 0 in between.
eta = 0 with gamma_pos = gamma_neg is the focal loss, eta = 0 alone the asymmetric loss, all
gammas 0 cross-entropy with label smoothing.

``control`` holds two losses that the paper does not have (OWN DEFINITION): ``scale_matched`` is
smoothed cross-entropy times the ratio of the norms of the two losses' gradients with respect to
the logits, per batch and detached, so that it has the cyclical focal loss's effective learning
rate and nothing else of it; ``mean_weight`` divides the loss by the mean target weight (detached).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Cyclical focal loss"


def _cycle() -> Any:
    """Return the paper's cycle: easy ends, hardest after a quarter of the run."""
    return {"kind": "cycle", "easy": 1.0, "hard": 0.0, "factor": 4.0}


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; the defaults are the paper's for CIFAR and ImageNet with f = 4."""

    eta: Quantity = field(
        default_factory=_cycle,
        metadata={"doc": "weight of the high-confidence (easy) part, 1 easy to 0 hard"},
    )
    gamma_hc: Quantity = field(
        default=3.0, metadata={"doc": "exponent of the high-confidence part", "low": 0.0}
    )
    gamma_pos: Quantity = field(
        default=2.0, metadata={"doc": "focusing exponent on the target class", "low": 0.0}
    )
    gamma_neg: Quantity = field(
        default=2.0, metadata={"doc": "focusing exponent on the other classes", "low": 0.0}
    )
    label_smoothing: float = field(
        default=0.1,
        metadata={"doc": "applied after the weights are formed", "low": 0.0, "high": 1.0},
    )
    control: Literal["none", "scale_matched", "mean_weight"] = field(
        default="none", metadata={"doc": "control losses of our own definition"}
    )


def class_weights(
    p: torch.Tensor,
    hot: torch.Tensor,
    eta: torch.Tensor,
    gamma_hc: torch.Tensor,
    gamma_pos: torch.Tensor,
    gamma_neg: torch.Tensor,
) -> torch.Tensor:
    """Return w [B, K] from probabilities p [B, K] and the boolean one-hot target [B, K]."""
    # Where p is exactly 0 or 1 the slope of a power below 1 is infinite, and infinity times the
    # zero that follows it is not a number. The floor changes no value that can be told from 0.
    floor = torch.finfo(p.dtype).tiny
    miss, p_low = (1 - p).clamp_min(floor), p.clamp_min(floor)
    low = torch.where(hot, miss**gamma_pos, p_low**gamma_neg)
    high = torch.where(hot, (1 + p) ** gamma_hc, 1.0)
    return (1 - eta) * low + eta * high


def focal_loss(
    logits: torch.Tensor,
    y: torch.Tensor,
    row: dict[str, torch.Tensor],
    label_smoothing: float,
    mean_weight: bool = False,
) -> torch.Tensor:
    """Return the cyclical focal loss of logits [B, K] and integer targets [B] at this ``row``."""
    log_p = F.log_softmax(logits, dim=1)
    classes = logits.shape[1]
    hot = torch.arange(classes, device=y.device) == y[:, None]
    w = class_weights(
        log_p.exp(), hot, row["eta"], row["gamma_hc"], row["gamma_pos"], row["gamma_neg"]
    )
    q = (1 - label_smoothing) * hot.to(w.dtype) + label_smoothing / classes
    loss = -(q * w * log_p).sum(1).mean()
    if mean_weight:
        loss = loss / (w.detach() * hot).sum(1).mean()
    return loss


def _logit_gradient_norm(
    loss: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor
) -> torch.Tensor:
    z = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z), z)
    return gradient.norm()


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of the batch; ``scale`` is logged where the control computes it."""
    logits = models["main"](batch.x).float()
    smoothing = settings.label_smoothing

    def focal(z: torch.Tensor) -> torch.Tensor:
        return focal_loss(z, batch.y, row, smoothing, settings.control == "mean_weight")

    def cross_entropy(z: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(z, batch.y, label_smoothing=smoothing)

    if settings.control != "scale_matched":
        return focal(logits), {}
    # The floor keeps a batch that is fitted perfectly from dividing zero by zero.
    scale = _logit_gradient_norm(focal, logits) / _logit_gradient_norm(
        cross_entropy, logits
    ).clamp_min(1e-12)
    return scale * cross_entropy(logits), {"scale": scale}
