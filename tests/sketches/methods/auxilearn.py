"""AuxiLearn (A. Navon et al., arXiv 2007.02693): a generator of labels lowers a held-out loss."""

from __future__ import annotations

from dataclasses import dataclass

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream

VERSION, TITLE, EVERY, RATE, TERMS, FINE = 1, "AuxiLearn (sketch)", 5, 0.1, 3, 2
streams = lambda settings: {"labelled": Stream(("weak",), "own")}  # noqa: E731
events = lambda settings, clock: range(EVERY, clock.updates, EVERY)  # noqa: E731
step = lambda models, batch, *_: (sum(losses(models, batch.x, batch.y)), {})  # noqa: E731


@dataclass(frozen=True)
class Settings:
    """There are none."""


def modules(settings, made):
    net = made.fresh(count := made.classes * FINE).requires_grad_(False)
    net.register_buffer("held", torch.zeros(made.classes, dtype=torch.int64))
    momentum = torch.nn.ParameterList(p * 0 for p in net.parameters()).requires_grad_(False)
    return {"net": net, "momentum": momentum, "fine": torch.nn.Linear(made.width, count)}


def begin(models, moment, settings):
    held = torch.stack([moment.ids[moment.y == c][0] for c in moment.y.unique()])
    models["net"].held.copy_(held)
    moment.fill("labelled", moment.ids[~torch.isin(moment.ids, held)])


def losses(models, x, y):
    h, z = models["main"].features(x), models["net"](x).float()
    other = torch.arange(z.shape[1], device=y.device) // FINE != y[:, None]
    labels = z.masked_fill(other, float("-inf")).softmax(1)
    main = F.cross_entropy(models["main"].head(h).float(), y)
    return main, F.cross_entropy(models["fine"](h).float(), labels)


def hyper_gradient(fitted, held, weights, of):
    slopes = torch.autograd.grad(fitted, weights, create_graph=True)
    v = first = torch.autograd.grad(held, weights, materialize_grads=True)
    for _ in range(TERMS):
        curved = torch.autograd.grad(slopes, weights, v, retain_graph=True)
        v = [a + b - RATE * c for a, b, c in zip(first, v, curved, strict=True)]
    return [-RATE * each for each in torch.autograd.grad(slopes, of, v)]


def event(models, moment, settings):
    net = models["net"].requires_grad_(True)
    both = moment.ids[~torch.isin(moment.ids, net.held)], net.held
    fitted, held = (losses(models, moment.images(ids), moment.labels(ids)) for ids in both)
    weights = [p for name in ("main", "fine") for p in models[name].parameters()]
    found = hyper_gradient(sum(fitted), held[0], weights, list(net.parameters()))
    net.requires_grad_(False)
    for p, m, g in zip(net.parameters(), models["momentum"], found, strict=True):
        p.sub_(RATE * m.mul_(0.9).add_(g))
