"""ReMixMatch: aligned guesses of weak views are the labels of strong ones, and all are mixed.

D. Berthelot et al., ReMixMatch (ICLR 2020, arXiv 1911.09785, section 3) and the code
google-research/remixmatch. A batch has B labelled samples x with one-hot labels, and B unlabelled
ones u in a weak view u_w and in K strong ones u_1 to u_K.

1. Guess: softmax f(u_w), with the weights and the batch statistics of this update, is aligned with
   the distribution of labels (section 3.1, `cyclery.methods._alignment`), then sharpened at a
   temperature T. This q is the target of u_w and of all u_k (augmentation anchoring, section 3.2).
2. Mix: sample i of the pool W = [x; u_w; u_1; ...; u_K] becomes l_i W_i + (1 - l_i) W_p(i), its
   label likewise, with a random permutation p and l_i = max(l, 1 - l) of l from Beta(alpha, alpha).
3. With CE the mean cross-entropy,

       loss = CE(first B mixtures) + weight * CE(the others) + unmixed_weight * CE(q, f(u_1))
              + rotation_weight * CE(turns, g(turned u_1))

   u_1 is not mixed in the last two; of these images each quarter is turned by another number of
   quarter turns, which g, a linear layer on the features of f, tells (section 3.3).

No gradient flows through q. The weights of the second and the third term rise from 0 over the first
2^20 of 2^26 labelled images. As in the code the labelled samples, too, are strong views; the K + 2
batches of the pool pass one after the other, interleaved; and running statistics come from the last
of these passes alone.

``prediction_view: ctaugment`` makes the strong views inside the step, as CTAugment learns to
(`cyclery.methods._learnt_views`), without the cutout that FixMatch adds at the end. Probes are the
weak views of the labelled samples, which are also what their strong views are made of.

The equations, section numbers and the values of the paper are from memory, what the code does was
read in it: K is 1 there unless its command says otherwise, and 8 in the paper.

alinlab/OpenCoS does otherwise: ``alignment: history``, ``share: batch``, ``statistics: all``,
``labelled_view: weak``, ``views: 1``, ``weight: 1.5`` from the start, without the last two terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import torch
from cyclery.methods import Stream, _alignment, _learnt_views, _remixmatch
from cyclery.methods._mix import correct
from cyclery.methods._rotations import QUARTERS
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "ReMixMatch"


def _ramp(end: float) -> Any:
    """Return the code's ramp: over 2^20 of 2^26 labelled images."""
    return {"kind": "ramp", "start": 0.0, "end": end, "over": 1 / 64, "shape": "linear"}


@dataclass(frozen=True)
class Settings:
    """Settings of guesses, views, mixture and loss; the defaults are the paper's for CIFAR-10."""

    weight: Quantity = field(
        default_factory=lambda: _ramp(1.5),
        metadata={"doc": "weight of the unlabelled mixtures (lambda_U)", "low": 0.0},
    )
    unmixed_weight: Quantity = field(
        default_factory=lambda: _ramp(0.5),
        metadata={
            "doc": "weight of the loss of the first prediction view before it is mixed",
            "low": 0.0,
        },
    )
    rotation_weight: Quantity = field(
        default=0.5,
        metadata={"doc": "weight of telling how far images are turned (lambda_r)", "low": 0.0},
    )
    alpha: Quantity = field(
        default=0.75, metadata={"doc": "of the Beta(alpha, alpha) that mixes", "low": 0.1}
    )
    temperature: Quantity = field(
        default=0.5, metadata={"doc": "sharpens guesses (T); 1 leaves them as they are", "low": 0.1}
    )
    views: int = field(
        default=8,
        metadata={"doc": "prediction views of an unlabelled sample (K)", "low": 1, "high": 16},
    )
    prediction_view: Literal["strong", "weak", "ctaugment"] = field(
        default="strong",
        metadata={
            "doc": "views that the guess of a weak one trains; `ctaugment`: weak ones, changed by "
            "CTAugment, which asks for no `strong`"
        },
    )
    labelled_view: Literal["prediction", "weak"] = field(
        default="prediction",
        metadata={"doc": "view of the labelled samples: of the kind of `prediction_view`, or weak"},
    )
    alignment: Literal["average", "history", False] = field(
        default="average",
        metadata={
            "doc": "what guesses are aligned with: the running `average` of labels, as in the "
            "official code, or the `history` of 128 batches of them, as in OpenCoS'; or not at all"
        },
    )
    share: Literal["sample", "batch"] = field(
        default="sample", metadata={"doc": "one share for each sample, or one for the batch"}
    )
    interleave: bool = field(
        default=True, metadata={"doc": "each pass has a part of every batch, or a batch of its own"}
    )
    statistics: Literal["last", "all"] = field(
        default="last",
        metadata={
            "doc": "passes that update running statistics: the last one of the mixture, or all of "
            "the trained network, those of guesses among them"
        },
    )
    unmixed: bool = field(
        default=True,
        metadata={"doc": "trains the first prediction view also as it is, before it is mixed"},
    )
    rotation: bool = field(
        default=True, metadata={"doc": "trains a head of its own to tell how images are turned"}
    )


def _learns(settings: Settings) -> bool:
    return settings.prediction_view == "ctaugment"


def streams(settings: Settings) -> dict[str, Any]:
    """Return the views of each stream: of unlabelled samples that of guesses comes first."""
    view = "weak" if _learns(settings) else settings.prediction_view
    labelled = view if settings.labelled_view == "prediction" else "weak"
    views = ("weak",) + (view,) * settings.views
    return {"labelled": (labelled,), "unlabelled": Stream(views, "unlabelled")}


def uses_ema(settings: Settings) -> bool:
    """Say whether the averaged network judges probes of CTAugment."""
    return _learns(settings)


def forwards(settings: Settings, images: Mapping[str, int]) -> int:
    """Return the images that pass: one view of unlabelled samples for each further term."""
    further = 1 + settings.unmixed + settings.rotation
    once = images["unlabelled"] // (1 + settings.views)
    probes = images["labelled"] if _learns(settings) else 0
    return sum(images.values()) + further * once + probes


def ignored(settings: Settings) -> dict[str, str]:
    """Return weights of what is left out."""
    left_out = {
        "unmixed_weight": "" if settings.unmixed else "unmixed: false",
        "rotation_weight": "" if settings.rotation else "rotation: false",
    }
    return {name: why for name, why in left_out.items() if why}


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the memory of alignment, the head that tells turns, and CTAugment, where on."""
    found: dict[str, torch.nn.Module] = {}
    if settings.alignment:
        found["alignment"] = _alignment.memory(made.classes, settings.alignment)
    if settings.rotation:
        _, height, width = made.shape
        if height != width:
            raise UserError(
                "method.rotation: only square images can be turned (found "
                f"{height} x {width} pixels); set it to false."
            )
        found["turns"] = turns = torch.nn.Linear(made.width, QUARTERS)
        torch.nn.init.xavier_normal_(turns.weight)
        torch.nn.init.zeros_(turns.bias)
    if _learns(settings):
        found["ctaugment"] = _learnt_views.module(made)
    return found


def _views(
    models: dict[str, torch.nn.Module],
    batch: Any,
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Return labelled images, all views of unlabelled ones, and what is logged of CTAugment."""
    if not _learns(settings):
        return batch.x, batch.unlabelled.views, {}
    weak, *others = batch.unlabelled.views
    images = [batch.x, *others] if settings.labelled_view == "prediction" else others
    made, probes, policy = _learnt_views.changed(
        models["ctaugment"], batch.x, torch.cat(images), generator, cutout=False
    )
    views = list(made.split(len(batch.y)))
    x = views.pop(0) if settings.labelled_view == "prediction" else batch.x
    proximity = _learnt_views.learn(models["ctaugment"], models["ema"], probes, policy, batch.y)
    return x, (weak, *views), {"proximity": proximity}


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; its parts and the accuracy of the targets are logged."""
    net: Any = models["main"]
    keep = net if settings.statistics == "last" else None
    x, views, logs = _views(models, batch, settings, generator)
    z = _remixmatch.guess(net, views[0], keep)
    kind = settings.alignment or "average"
    q = _remixmatch.targets(z, batch.y, row["temperature"], models.get("alignment"), kind)
    known = torch.eye(q.shape[1], device=q.device)[batch.y]
    loss_x, loss_u = _remixmatch.mixture_losses(
        net,
        torch.cat([x, *views]),
        torch.cat([known, *[q] * len(views)]),
        len(batch.y),
        row["alpha"],
        generator,
        per_sample=settings.share == "sample",
        interleave=settings.interleave,
        keep=keep,
    )
    loss = loss_x + row["weight"] * loss_u
    logs |= {"loss_labelled": loss_x, "loss_unlabelled": loss_u}
    if settings.unmixed:
        logs["loss_unmixed"] = _remixmatch.unmixed_loss(net, views[1], q, keep)
        loss = loss + row["unmixed_weight"] * logs["loss_unmixed"]
    if settings.rotation:
        logs["loss_rotation"] = _remixmatch.rotation_loss(
            lambda images: models["turns"](net.features(images)), views[1], keep
        )
        loss = loss + row["rotation_weight"] * logs["loss_rotation"]
    return loss, {**logs, "target_correct": correct(q, batch.unlabelled.y)}
