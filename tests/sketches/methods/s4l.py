"""S4L: what needs no labels is learnt beside what does (X. Zhai et al., arXiv 1905.03670).

Which of four rotations an image is in, or batch-hard triplets of views, in each stream apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream
from cyclery.schedules import Quantity

VERSION, TITLE = 1, "S4L (sketch)"


@dataclass(frozen=True)
class Settings:
    """Settings of the loss without labels."""

    weight: Quantity = field(default=1.0, metadata={"doc": "of that loss", "low": 0.0})
    task: Literal["rotation", "exemplar"] = field(default="rotation", metadata={"doc": "which"})


def streams(settings):
    views = ("weak",) * (1 if settings.task == "rotation" else 4)
    return {"labelled": Stream(views), "unlabelled": Stream(views, "unlabelled")}


def forwards(settings, images):
    return sum(images.values()) * (4 if settings.task == "rotation" else 1)


def modules(settings, made):
    return {"task": torch.nn.Linear(made.width, 4 if settings.task == "rotation" else 16)}


def step(models, batch, row, settings, generator):
    views = [*batch.unlabelled.views, *batch.labelled.views]
    if settings.task == "rotation":
        views = [torch.rot90(x, k, (2, 3)) for x in views for k in range(4)]
    h = models["main"].features(torch.cat(views))
    parts = models["task"](h).float().view(2, 4, len(batch.y), -1)
    task = sum({"rotation": rotations, "exemplar": triplet}[settings.task](z) for z in parts) / 2
    labelled = F.cross_entropy(models["main"].head(h[len(h) // 2 :]).float(), batch.y.repeat(4))
    return labelled + row["weight"] * task, {"loss_labelled": labelled, "loss_task": task}


def rotations(z):
    turns = torch.arange(4, device=z.device)[:, None].expand(4, z.shape[1])
    return F.cross_entropy(z.flatten(0, 1), turns.flatten())


def triplet(z):
    ids = torch.arange(z.shape[1], device=z.device).repeat(len(z))
    z = F.normalize(z.flatten(0, 1))
    d, same = (2 - 2 * z @ z.T).clamp(min=1e-12).sqrt(), ids[:, None] == ids
    return F.softplus(d.masked_fill(~same, 0).amax(1) - d.masked_fill(same, 9).amin(1)).mean()
