"""Deep reference priors of order 2 (Y. Gao et al., arXiv 2202.00187): an ensemble of K networks."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION, TITLE = 1, "Deep reference priors (sketch)"


@dataclass(frozen=True)
class Settings:
    alpha: Quantity = field(default=0.05, metadata={"doc": "of H(y)", "low": 0.0})
    particles: int = field(default=4, metadata={"doc": "networks, K", "low": 1})


def streams(settings):
    return {"labelled": ("weak",), "unlabelled": ("weak", "strong")}


def modules(settings, made):
    return {name: made.fresh() for name in keeps(settings)}


def keeps(settings):
    return tuple(f"particle_{k}" for k in range(1, settings.particles))


def forwards(settings, images):
    return settings.particles * sum(images.values())


def predict(models, x, settings, average=True):
    z = torch.stack([models[k](x).float().log_softmax(1) for k in ("main", *keeps(settings))])
    return z.mean(0) if average else z


def measures(settings):
    return ("test_particle_accuracy",)


def evaluate(models, measured, settings):
    ids = measured.pool("test")
    said = measured.outputs(lambda x: predict(models, x, settings, False).argmax(2).T, ids)
    return {"test_particle_accuracy": (measured.labels(ids) == said.T).float().mean().item()}


def step(models, batch, row, settings, generator):
    z = predict(models, torch.cat([batch.x, *batch.unlabelled.views]), settings, average=False)
    labelled, weak, strong = z.split([len(batch.y), *[len(batch.unlabelled.y)] * 2], 1)
    loss_x, sure = F.nll_loss(labelled.flatten(0, 1), batch.y.repeat(len(z))), weak.detach()
    costs = -((sure.exp() + 2 * strong.exp()) * (sure + 2 * strong)).sum(2) / 9
    h_yw = (costs * (sure.amax(2).exp() >= 0.95)).mean()
    pairs = torch.einsum("kbc,kbd->bcd", *weak.exp().chunk(2, 1)) / len(z)
    h_y = torch.special.entr(pairs).sum((1, 2)).mean() / 2
    return loss_x + 1.125 * (h_yw - row["alpha"] * h_y), {"h_y": h_y}
