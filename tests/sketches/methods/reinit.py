"""Re-initialisation (S. Zaidi et al., arXiv 2206.10011) by shrink and perturb (1910.08475)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F, torch
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "Re-initialisation (sketch)"


@dataclass(frozen=True)
class Settings:
    stages: int = field(default=2, metadata={"doc": "stages of equal length", "low": 1})
    shrink: float = field(default=0.4, metadata={"doc": "lambda", "low": 0.0})
    perturb: float = field(default=0.1, metadata={"doc": "gamma", "low": 0.0})
    distil: Quantity = field(default=0.0, metadata={"doc": "share of the teacher", "low": 0.0})


def modules(settings, made):
    return {"before": made.fresh().requires_grad_(False)}


def events(settings, clock):
    return [round(clock.updates * k / settings.stages) for k in range(1, settings.stages)]


def event(models, moment, settings):
    net, fresh = models["main"], moment.drawn_again()["main"]
    models["before"].load_state_dict(net.state_dict())
    with torch.no_grad():
        for own, new in zip(net.parameters(), fresh.parameters(), strict=True):
            own.mul_(settings.shrink).add_(new.to(own.device) * settings.perturb)
        for own, new in zip(net.buffers(), fresh.buffers(), strict=True):
            own.copy_(new)
    moment.forget()
    moment.restart_average()


def step(models, batch, row, settings, generator):
    z = models["main"](batch.x).float()
    with torch.no_grad():
        q = models["before"].eval()(batch.x).float().softmax(1)
    loss, told = F.cross_entropy(z, batch.y), F.kl_div(z.log_softmax(1), q, reduction="batchmean")
    return loss.lerp(told, row["distil"]), {"told": told}


def measures(settings):
    return ("train_wrong_accuracy",)


def evaluate(models, measured, settings):
    ids = measured.pool("train")
    ids = ids[measured.labels(ids) != measured.true_labels(ids)]
    right = measured.outputs(models["main"], ids).argmax(1) == measured.labels(ids)
    return {"train_wrong_accuracy": right.float().mean().item()}
