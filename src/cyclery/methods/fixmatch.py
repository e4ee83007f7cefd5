"""FixMatch: pseudo-labels from one view train the prediction on another.

K. Sohn et al., FixMatch (arXiv 2001.07685, section 2.2) and the official code
google-research/fixmatch: with z_x the logits of the labelled view, z_w and z_s those of the label
view and the prediction view of mu B unlabelled samples, and q = softmax(z_w),

    loss = mean_B CE(y, z_x) + weight / (mu B) sum_b 1[max q_b >= threshold] CE(argmax q_b, z_s_b)

One train-mode pass holds the three, so they share batch statistics. No gradient flows through
z_w. What is masked out counts in the divisor; there is no ramp.

Sharpening, as in the ablations of the code: with ``target: hard`` the mask looks at softmax(z_w /
T) (ab_fixmatch_sharpen; the argmax is that of T = 1), with ``target: soft`` the target is
softmax(z_w / T) and the mask looks at softmax(z_w) (..._sharpen_conditional_consistency).

``labels_from`` takes z_w from the averaged weights (ab_fixmatch_meanteacher and
..._meanteacher_train); as there, the label view then leaves the pass of the trained network.
``label_view`` and ``prediction_view`` are the anchoring ablation: where both are of one kind they
are two independent draws of it, as in ab_fixmatch_anchoring. ``prediction_view: ctaugment`` is the
strong view of that code itself: a weak view, changed inside the step by CTAugment, whose strengths
the run learns (`cyclery.methods._learnt_views`). Its probes are the weak views of the labelled
samples, which the averaged network judges.

Distribution alignment (`cyclery.methods._alignment`) is an extension that the repository has in
ReMixMatch only: q is multiplied by a ratio and normalised before anything else is done with it.
OWN DEFINITION: where this enters FixMatch.

A cycle in ``weight`` or ``threshold`` is our reading (OWN DEFINITION) of the cyclical
semi-supervised learning that General Cyclical Training proposes (L. N. Smith, arXiv 2202.08835).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.lazy import F, torch
from cyclery.methods import _alignment, _learnt_views
from cyclery.methods._ssl import averaged, passes, pseudo_figures
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "FixMatch"


@dataclass(frozen=True)
class Settings:
    """Settings of the loss; the defaults are the paper's for CIFAR-10, SVHN and STL-10."""

    threshold: Quantity = field(
        default=0.95,
        metadata={"doc": "confidence from which a pseudo-label is used", "low": 0.0, "high": 1.0},
    )
    weight: Quantity = field(
        default=1.0, metadata={"doc": "weight of the unlabelled loss (lambda_u)", "low": 0.0}
    )
    temperature: Quantity = field(
        default=1.0,
        metadata={
            "doc": "divides the logits of the label view: for the mask of hard targets, for the "
            "target itself of soft ones",
            "above": 0.0,
        },
    )
    target: Literal["hard", "soft"] = field(
        default="hard",
        metadata={"doc": "the likeliest class, or the probabilities at the temperature"},
    )
    label_view: Literal["weak", "strong"] = field(
        default="weak", metadata={"doc": "view that the pseudo-label is taken from"}
    )
    prediction_view: Literal["weak", "strong", "ctaugment"] = field(
        default="strong",
        metadata={
            "doc": "view that the pseudo-label trains; `ctaugment`: a weak one, changed by "
            "CTAugment and a cutout of half the side, which ask for no `strong`"
        },
    )
    labels_from: Literal["main", "ema_eval", "ema_train"] = field(
        default="main",
        metadata={
            "doc": "network of the pseudo-labels: `main`, the one that is trained, or the averaged "
            "one, its norms in evaluation or in training mode"
        },
    )
    alignment: Literal[False, "average"] = field(
        default=False,
        metadata={
            "doc": "`average` aligns the pseudo-labels with a running average of the "
            "distribution of the labels"
        },
    )


def streams(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the views of each stream: the label view comes before the prediction view."""
    learnt = settings.prediction_view == "ctaugment"
    prediction_view = "weak" if learnt else settings.prediction_view
    return {"labelled": ("weak",), "unlabelled": (settings.label_view, prediction_view)}


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass a network: all views, and the probes of CTAugment."""
    probes = images["labelled"] if settings.prediction_view == "ctaugment" else 0
    return sum(images.values()) + probes


def uses_ema(settings: Settings) -> bool:
    """Say whether the averaged network makes pseudo-labels, or judges probes."""
    return settings.labels_from != "main" or settings.prediction_view == "ctaugment"


def trains_ema(settings: Settings) -> bool:
    """Say whether the averaged network labels in training mode."""
    return settings.labels_from == "ema_train"


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the memory of distribution alignment, and CTAugment, where they are on."""
    found: dict[str, torch.nn.Module] = {}
    if settings.prediction_view == "ctaugment":
        found["ctaugment"] = _learnt_views.module(made)
    if settings.alignment:
        found["alignment"] = _alignment.memory(made.classes)
    return found


def unlabelled_losses(
    z_label: torch.Tensor,
    z_prediction: torch.Tensor,
    row: dict[str, torch.Tensor],
    target: Literal["hard", "soft"],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss of each sample [N], the mask [N] of 0 and 1, and the pseudo-labels [N].

    ``z_label`` [N, K] are the (aligned) logits of the label view, cut off from any graph,
    ``z_prediction`` [N, K] those of the prediction view.
    """
    sharp = (z_label / row["temperature"]).softmax(1)
    if target == "hard":
        return confident_losses(sharp, z_prediction, row["threshold"])
    return confident_losses(z_label.softmax(1), z_prediction, row["threshold"], sharp)


def confident_losses(
    q: torch.Tensor,
    z: torch.Tensor,
    threshold: torch.Tensor,
    target: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss of each sample [N], the mask [N] of 0 and 1, and the pseudo-labels [N].

    Probabilities ``q`` [N, K] say the pseudo-labels, and which of them are confident enough;
    logits ``z`` [N, K] are trained on them, or on ``target`` [N, K].
    """
    confidence, labels = q.max(1)
    losses = F.cross_entropy(z, labels if target is None else target, reduction="none")
    mask = (confidence >= threshold).to(losses.dtype)
    return losses * mask, mask, labels


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its two parts and figures of the pseudo-labels are logged."""
    label_view, prediction_view = batch.unlabelled.views
    learnt, logs = settings.prediction_view == "ctaugment", {}
    if learnt:
        prediction_view, probes, policy = _learnt_views.changed(
            models["ctaugment"], batch.x, prediction_view, generator
        )
    # The trained network goes first: under autocast a pass without a graph must not be the one
    # that casts its weights.
    if settings.labels_from == "main":
        parts = [batch.x, label_view, prediction_view]
        z_x, z_w, z_s = passes(models["main"], parts, "joint")
    else:
        z_x, z_s = passes(models["main"], [batch.x, prediction_view], "joint")
        z_w = averaged(models["ema"], label_view, settings.labels_from == "ema_eval")
    z_w = z_w.detach()
    if settings.alignment:
        z_w = z_w + _alignment.alignment(models["alignment"], z_w.softmax(1), batch.y)
    if learnt:
        logs["proximity"] = _learnt_views.learn(
            models["ctaugment"], models["ema"], probes, policy, batch.y
        )
    losses, mask, labels = unlabelled_losses(z_w, z_s, row, settings.target)
    loss_x, loss_u = F.cross_entropy(z_x, batch.y), losses.mean()
    return loss_x + row["weight"] * loss_u, {
        "loss_labelled": loss_x,
        "loss_unlabelled": loss_u,
        **pseudo_figures(mask, labels, batch.unlabelled.y, z_x.shape[1]),
        **logs,
    }
