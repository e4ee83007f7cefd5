"""MixMatch: guesses are averaged over K views, sharpened, and mixed with labelled samples.

D. Berthelot et al. (arXiv 1905.02249), section 3; one interleaved pass for each B of the images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream
from cyclery.methods._ssl import passes
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "MixMatch (sketch)"


@dataclass(frozen=True)
class Settings:
    """Settings of the guesses, the mixture and the loss."""

    weight: Quantity = field(default=75.0, metadata={"doc": "of the unlabelled loss", "low": 0.0})
    alpha: Quantity = field(default=0.75, metadata={"doc": "of Beta(alpha, alpha)", "low": 0.1})
    temperature: float = field(default=0.5, metadata={"doc": "sharpens guesses", "above": 0.0})
    views: int = field(default=2, metadata={"doc": "views that are averaged", "low": 1})


def streams(settings):
    return {"labelled": ("weak",), "unlabelled": Stream(("weak",) * settings.views, "unlabelled")}


def forwards(settings, images):
    return sum(images.values()) + images["unlabelled"]


def interleaved(parts, size):
    j, part = torch.arange(size), torch.arange(1, parts)[:, None]
    own = j * parts // size
    return torch.cat([own * size + j, torch.where(part == own, j, part * size + j).flatten()])


def step(models, batch, row, settings, generator):
    from cyclery.models.layers import statistics_kept

    net, views, n = models["main"], batch.unlabelled.views, len(batch.x)
    with torch.no_grad(), statistics_kept(net):
        q = torch.stack([net(x).float().softmax(1) for x in views]).mean(0).log()
    q = (q / settings.temperature).softmax(1)
    x = torch.cat([batch.x, *views])
    y = torch.cat([torch.eye(q.shape[1], device=x.device)[batch.y], *[q] * len(views)])
    a, b = torch._standard_gamma(row["alpha"].expand(2, len(x)), generator=generator)
    share = torch.maximum(a, b) / (a + b)
    other = torch.rand(len(x), generator=generator, device=x.device).argsort()
    x, y = x[other].lerp(x, share.view(-1, 1, 1, 1)), y[other].lerp(y, share[:, None])
    order = interleaved(1 + len(views), n).to(x.device)
    z = torch.cat(passes(net, x[order].split(n), "separate", keep=net))[order]
    loss_x, loss_u = F.cross_entropy(z[:n], y[:n]), F.mse_loss(z[n:].softmax(1), y[n:])
    return loss_x + row["weight"] * loss_u, {"loss_unlabelled": loss_u}
