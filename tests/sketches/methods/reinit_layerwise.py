"""Layer-wise re-initialisation (arXiv 2109.00267): each stage keeps one more block."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.lazy import F, torch
from cyclery.methods import reinit

VERSION, TITLE = 1, "Layer-wise re-initialisation (sketch)"
events = reinit.events


@dataclass(frozen=True)
class Settings:
    stages: int = field(default=3, metadata={"doc": "stages, as many as blocks", "low": 2})


def modules(settings, made):
    norms = torch.stack([p.detach().norm() for p in made.net.parameters()])
    moments = torch.tensor([[[0.0], [1.0]]]).repeat(settings.stages, 1, made.width)
    state = {"norms": norms, "moments": moments, "due": torch.zeros(settings.stages)}
    return {"memory": torch.nn.ParameterDict(state).requires_grad_(False)}


def blocks(net):
    ends = [i + 1 for i, part in enumerate(net.body) if list(part.children())]
    return [net.body[start:end] for start, end in zip([0, *ends], [*ends, None], strict=True)]


def event(models, moment, settings):
    net, memory, fresh = models["main"], models["memory"], moment.drawn_again()["main"]
    stage = 1 + events(settings, moment.clock).index(moment.update)
    memory.due[stage], kept = 1, {id(p) for b in blocks(net)[:stage] for p in b.parameters()}
    with torch.no_grad():
        for p, new, norm in zip(net.parameters(), fresh.parameters(), memory.norms, strict=True):
            p.copy_(p * (norm / p.norm().clamp_min(1e-6)) if id(p) in kept else new)
    moment.forget()


def features(models, x, settings):
    net, memory = models["main"], models["memory"]
    for g, block in enumerate(blocks(net)):
        if g:
            moments, due, h = memory.moments[g], memory.due[g], x.detach().float()
            if net.training:
                moments.lerp_(torch.stack([h.mean(0), h.std(0).clamp_min(1e-5)]), due)
                due.zero_()
            x = (x - moments[0]) * moments[1].reciprocal()
        x = block(x)
    return {"features": x}


def predict(models, x, settings):
    return models["main"].head(features(models, x, settings)["features"])


def step(models, batch, row, settings, generator):
    return F.cross_entropy(predict(models, batch.x, settings).float(), batch.y), {}
