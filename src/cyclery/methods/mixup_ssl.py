"""MixUp of labelled and of unlabelled samples, the baseline of MixMatch.

D. Berthelot et al., MixMatch (arXiv 1905.02249, section 4.1), after H. Zhang et al., mixup (arXiv
1710.09412), as in mixup.py of google-research/mixmatch: sample i of a batch is mixed with the i-th
from its end, its label likewise, with a share max(l, 1 - l) of itself, where l is drawn for each
sample from Beta(alpha, alpha). The label of an unlabelled sample is what the network says of it,

    loss = mean CE(mixed labels, labelled mixture) + weight * mean CE(mixed softmax f(u), mixture)

without a gradient through softmax f(u) and without sharpening. Running statistics come from the
labelled mixture alone. ``pools: labelled`` is plain supervised MixUp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.lazy import F, torch
from cyclery.methods._mix import blended, correct, guess_passes, mirrored, mixed, shares
from cyclery.methods._ssl import passes
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "MixUp"


@dataclass(frozen=True)
class Settings:
    """Settings of the mixture; the defaults are the code's for CIFAR-10."""

    alpha: Quantity = field(
        default=0.75, metadata={"doc": "of the Beta(alpha, alpha) that mixes", "low": 0.1}
    )
    weight: Quantity = field(
        default=1.0, metadata={"doc": "weight of the unlabelled loss", "low": 0.0}
    )
    pools: Literal["both", "labelled"] = field(
        default="both", metadata={"doc": "samples that are trained on"}
    )


def streams(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the views of each stream."""
    names = ("labelled", "unlabelled") if settings.pools == "both" else ("labelled",)
    return dict.fromkeys(names, ("weak",))


def forwards(settings: Settings, images: Mapping[str, int]) -> int:
    """Return the images that pass: the unlabelled ones twice, for their labels and to train."""
    return sum(images.values()) + images.get("unlabelled", 0)


def ignored(settings: Settings) -> dict[str, str]:
    """Return what has no effect without unlabelled samples."""
    return {} if settings.pools == "both" else {"weight": "pools: labelled"}


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its parts and the accuracy of the guesses are logged."""
    net, size = models["main"], len(batch.y)
    share, other = shares(row["alpha"], size, generator), mirrored(size, batch.x.device)
    x = blended(batch.x, share, other)

    def labelled_loss(z: torch.Tensor) -> torch.Tensor:
        own = F.cross_entropy(z, batch.y, reduction="none")
        others = F.cross_entropy(z, batch.y.index_select(0, other), reduction="none")
        return (share * own + (1 - share) * others).mean()

    if settings.pools == "labelled":
        loss = labelled_loss(net(x).float())
        return loss, {"loss_labelled": loss}
    unlabelled = batch.unlabelled
    q = guess_passes(net, [unlabelled.x], net)[0].softmax(1)
    count = len(unlabelled.y)
    u, labels = mixed(
        unlabelled.x,
        q,
        shares(row["alpha"], count, generator),
        mirrored(count, unlabelled.x.device),
    )
    z_x, z_u = passes(net, [x, u], "separate", net)
    loss_x, loss_u = labelled_loss(z_x), F.cross_entropy(z_u, labels)
    return loss_x + row["weight"] * loss_u, {
        "loss_labelled": loss_x,
        "loss_unlabelled": loss_u,
        "target_correct": correct(q, unlabelled.y),
    }
