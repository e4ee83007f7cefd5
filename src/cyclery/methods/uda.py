"""UDA: the sharpened prediction for one view trains that for a noised view; TSA for the labels.

Q. Xie et al., Unsupervised Data Augmentation for Consistency Training (arXiv 1904.12848, equation 1
and section 2.4) and the official code google-research/uda: with z_x the logits of the labelled
view, z_w those of the original view and z_s those of the noised view of mu B unlabelled samples,

    loss = L_x + weight / (mu B) sum_b 1[max softmax(z_w_b) > confidence]
                                       KL(softmax(z_w_b / temperature) || softmax(z_s_b))

One train-mode pass holds the three, so they share batch statistics; no gradient flows through the
target. The confidence is that of the prediction as it is, not of the sharpened target, and must be
above the bound, where FixMatch takes the bound itself, too. What is masked out counts in the
divisor.

Training signal annealing (TSA, appendix A.1): with p_i the probability of the right class of a
labelled sample,

    L_x = sum_i m_i CE_i / max(sum_i m_i, 1)        m_i = 0 where p_i > eta, else 1
    eta = 1/K + release (1 - 1/K)

so the mean is over what is kept, and a release of 1 keeps everything. With t the share of the
updates done, the paper's schedules of ``release`` are t (`linear`), exp(5 (t - 1)) and
1 - exp(-5 t) (both `exponential`).

``entropy`` weighs the mean entropy of softmax(z_w), with a gradient; the paper has it on the whole
of ImageNet alone.

Public versions differ, and each difference is a setting: TorchSSL and USB compare the largest
probability with eta and divide by all B samples (``signal: largest``, ``mean_over: all``); USB
never applies the temperature (``temperature: 1``). A mask of the sharpened prediction (``mask_from:
sharpened``) is what one gets who takes the confidence off the target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.lazy import F, torch
from cyclery.methods._ssl import passes, pseudo_figures
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "UDA"


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; the defaults are those of the official code for CIFAR-10 and SVHN."""

    weight: Quantity = field(
        default=1.0, metadata={"doc": "weight of the unlabelled loss (lambda)", "low": 0.0}
    )
    confidence: Quantity = field(
        default=0.8,
        metadata={
            "doc": "above which the largest probability must be for a sample to count (beta)",
            "low": 0.0,
            "high": 1.0,
        },
    )
    temperature: Quantity = field(
        default=0.4,
        metadata={"doc": "divides the logits of the original view in the target", "above": 0.0},
    )
    release: Quantity = field(
        default=1.0,
        metadata={
            "doc": "a in the bound 1/K + a (1 - 1/K): labelled samples whose probability is above "
            "it are left out; 1 leaves out none",
            "low": 0.0,
            "high": 1.0,
        },
    )
    entropy: Quantity = field(
        default=0.0,
        metadata={"doc": "weight of the mean entropy of the original views", "low": 0.0},
    )
    signal: Literal["correct", "largest"] = field(
        default="correct",
        metadata={
            "doc": "probability that is compared with the bound: that of the `correct` class, or "
            "the `largest` (TorchSSL, USB)"
        },
    )
    mean_over: Literal["kept", "all"] = field(
        default="kept",
        metadata={
            "doc": "what the labelled loss is a mean over: the `kept` samples, or `all`, those "
            "left out with a loss of 0 (TorchSSL, USB)"
        },
    )
    mask_from: Literal["plain", "sharpened"] = field(
        default="plain",
        metadata={
            "doc": "prediction whose largest probability is the confidence: the `plain` one, or "
            "the `sharpened` target"
        },
    )
    prediction_view: Literal["weak", "strong"] = field(
        default="strong", metadata={"doc": "the noised view, which the target trains"}
    )


def streams(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the views of each stream: the original view comes before the noised one."""
    return {"labelled": ("weak",), "unlabelled": ("weak", settings.prediction_view)}


def labelled_loss(
    z: torch.Tensor, y: torch.Tensor, release: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the annealed cross-entropy [] of logits z [B, K], the bound and the share kept."""
    losses = F.cross_entropy(z, y, reduction="none")
    # Written so that a release of 1 is a bound of exactly 1, which no probability is above.
    bound = 1 - (1 - release) * (1 - 1 / z.shape[1])
    if settings.signal == "correct":
        known = (-losses.detach()).exp()
    else:
        known = z.detach().softmax(1).amax(1)
    kept = (known <= bound).to(losses.dtype)
    total = kept.sum().clamp_min(1) if settings.mean_over == "kept" else len(y)
    return (kept * losses).sum() / total, {"bound": bound, "kept": kept.mean()}


def consistency(
    z_original: torch.Tensor,
    z_noised: torch.Tensor,
    row: dict[str, torch.Tensor],
    settings: Settings,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the divergence of each sample [N], the mask [N] of 0 and 1, and the classes [N].

    ``z_original`` [N, K] is cut off from any graph. The logarithm of the target comes from its
    logits, so that two equal predictions have a divergence of exactly 0.
    """
    log_target = (z_original / row["temperature"]).log_softmax(1)
    target = log_target.exp()
    losses = (target * (log_target - z_noised.log_softmax(1))).sum(1)
    shown = target if settings.mask_from == "sharpened" else z_original.softmax(1)
    largest, classes = shown.max(1)
    return losses, (largest > row["confidence"]).to(losses.dtype), classes


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its parts, the bound and the share kept of TSA, and the mask are logged."""
    z_x, z_w, z_s = passes(models["main"], [batch.x, *batch.unlabelled.views], "joint")
    loss_x, annealed = labelled_loss(z_x, batch.y, row["release"], settings)
    losses, mask, classes = consistency(z_w.detach(), z_s, row, settings)
    loss_u = (mask * losses).mean()
    log_w = z_w.log_softmax(1)
    entropy = -(log_w.exp() * log_w).sum(1).mean()
    return loss_x + row["weight"] * loss_u + row["entropy"] * entropy, {
        "loss_labelled": loss_x,
        "loss_unlabelled": loss_u,
        "entropy": entropy,
        **annealed,
        **pseudo_figures(mask, classes, batch.unlabelled.y, z_x.shape[1]),
    }
