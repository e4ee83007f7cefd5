"""SimCLR: two views of an image attract each other, those of other images repel.

T. Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (ICML 2020,
arXiv 2002.05709), section 2.1. Both views of N images pass the network f at once, so that batch
norm measures all 2N. With h = f(x), the projector g, z = g(h), t the temperature and
s_ij = cos(z_i, z_j) / t,

    loss = mean over the 2N views i of -s_ip + log sum_{k != i} exp(s_ik),  p the other view of i

No labels are used, and what is evaluated is h. ``loss_scale: sum`` is the official code's, which
adds the means of the two views: twice the above, which matters to LARS for biases and norms alone.

The losses that it is compared with (table 2) are NT-Logistic and the margin triplet, each with all
negatives or the semi-hard one, and negatives of one view (``negatives: other``). How an anchor's
negatives are put together is not printed: here it is by their mean, beside one positive, and an
anchor without a semi-hard negative has nothing but its positive.

The projector is that of the paper: a linear layer as wide as h, batch norm and ReLU, then a linear
layer to 128 and batch norm without offset. The official code's newer form has ``layers: 3``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.methods import Stream
from cyclery.methods._contrastive import (
    Mining,
    Negatives,
    check_pairs,
    contrastive_accuracy,
    contrastive_entropy,
    margin_triplet,
    nt_logistic,
    nt_xent,
    similarities,
    spread,
    unit,
)
from cyclery.methods._projection import OutputNorm, mlp, projected
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "SimCLR"


@dataclass(frozen=True)
class Settings:
    """Settings of loss and projector; the defaults are the paper's for CIFAR-10 (B.9)."""

    temperature: Quantity = field(
        default=0.5, metadata={"doc": "divides similarities; 0.1 on ImageNet", "above": 0.0}
    )
    loss: Literal["nt_xent", "nt_logistic", "margin"] = field(
        default="nt_xent", metadata={"doc": "which loss"}
    )
    mining: Mining = field(
        default="all",
        metadata={"doc": "negatives of an anchor: `all`, or the `semi_hard` one, not of nt_xent"},
    )
    margin: Quantity = field(
        default=0.4,
        metadata={"doc": "of the triplet, and of semi-hard negatives", "low": 0.0, "high": 2.0},
    )
    negatives: Negatives = field(
        default="both",
        metadata={"doc": "views that an anchor's negatives are of: `both`, or the `other` one"},
    )
    normalise: bool = field(
        default=True, metadata={"doc": "similarities are cosines, not products of vectors"}
    )
    loss_scale: Literal["mean", "sum"] = field(
        default="mean",
        metadata={"doc": "mean over the views of all images, or the sum of a mean for each view"},
    )
    head: Literal["mlp", "linear", "none"] = field(
        default="mlp", metadata={"doc": "projector; `none` compares features themselves"}
    )
    layers: int = field(
        default=2, metadata={"doc": "linear layers of an `mlp`", "low": 2, "high": 8}
    )
    hidden: int | None = field(
        default=None,
        metadata={"doc": "units of its hidden layers; null: as many as features", "low": 1,
                  "high": 65_536},
    )  # fmt: skip
    output: int | None = field(
        default=128,
        metadata={"doc": "length of z; null: that of the features", "low": 1, "high": 65_536},
    )
    hidden_norm: bool = field(default=True, metadata={"doc": "batch norm in hidden layers"})
    output_norm: OutputNorm = field(
        default="scale",
        metadata={"doc": "batch norm of z: none, without offset (`scale`), or `affine`"},
    )
    weights_std: float | None = field(
        default=0.01,
        metadata={"doc": "deviation of the projector's initial weights; null: torch's own",
                  "above": 0.0, "high": 10.0},
    )  # fmt: skip
    pool: Literal["train", "unlabelled"] = field(
        default="train", metadata={"doc": "samples that are looked at"}
    )

    def __post_init__(self) -> None:
        if self.loss == "nt_xent" and self.mining != "all":
            raise UserError(f"mining: must be all with loss: nt_xent (found {self.mining}).")


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the one stream: two strong views, drawn from the same distribution."""
    return {"pairs": Stream(("strong", "strong"), settings.pool)}


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass: both views. A UserError where there is one image."""
    check_pairs(images["pairs"])
    return images["pairs"]


def classifies(settings: Settings) -> bool:
    """Say that no labels train the head."""
    return False


def keeps(settings: Settings) -> tuple[str, ...]:
    """Return what is handed on beside the network."""
    return ("projector",)


def ignored(settings: Settings) -> dict[str, str]:
    """Return the settings that nothing reads beside the others."""
    found = {}
    if settings.loss == "margin":
        found["temperature"] = "loss: margin"
    if settings.loss != "margin" and settings.mining == "all":
        found["margin"] = f"loss: {settings.loss}"
    if settings.head != "mlp":
        found |= dict.fromkeys(("layers", "hidden", "hidden_norm"), f"head: {settings.head}")
    if settings.head == "none":
        found |= dict.fromkeys(("output", "output_norm", "weights_std"), "head: none")
    return found


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the projector."""
    layers = {"mlp": settings.layers, "linear": 1, "none": 0}[settings.head]
    width: int = made.width
    return {
        "projector": mlp(
            width,
            settings.hidden or width,
            settings.output or width,
            layers,
            hidden_norm=settings.hidden_norm,
            output_norm=settings.output_norm,
            std=settings.weights_std,
        )
    }


def features(
    models: dict[str, torch.nn.Module], x: torch.Tensor, settings: Settings
) -> dict[str, torch.Tensor]:
    """Return h as ``features``, and ``z`` behind the projector, of images [B, C, H, W]."""
    return projected(models, x)


def _loss(s: torch.Tensor, row: dict[str, torch.Tensor], settings: Settings) -> torch.Tensor:
    """Return the mean loss of anchors whose similarities are s [2N, 2N]."""
    if settings.loss == "nt_xent":
        return nt_xent(s, row["temperature"], settings.negatives)
    if settings.loss == "margin":
        return margin_triplet(s, row["margin"], settings.negatives, settings.mining)
    return nt_logistic(s, row["temperature"], settings.negatives, settings.mining, row["margin"])


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; how well views find each other is logged, and whether z collapses."""
    z = features(models, torch.cat(batch["pairs"].views), settings)["z"].float()
    s = similarities(unit(z) if settings.normalise else z)
    loss = _loss(s, row, settings)
    with torch.no_grad():
        logs = {"contrastive_accuracy": contrastive_accuracy(s), "collapse": spread(z)}
        if settings.loss != "margin":
            logs["contrastive_entropy"] = contrastive_entropy(s, row["temperature"])
    return loss * 2 if settings.loss_scale == "sum" else loss, logs
