"""OpenCoS (J. Park et al., arXiv 2107.08943, section 3) with FixMatch, after SimCLR."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream

VERSION, TITLE = 1, "OpenCoS (sketch)"
parents, measures = (lambda settings: ("encoder",)), (lambda settings: ("unlabelled_auroc",))


@dataclass(frozen=True)
class Settings:
    """There are none: those of the paper's commands are written out below."""


def streams(settings):
    plus, pair = Stream(("weak",), "own", sampler="balanced"), Stream(("weak", "strong"), "own")
    return {"plus": plus, "inside": pair, "outside": Stream(("weak",), "own")}


def modules(settings, made):
    rest = [m for m in made.net.modules() if not hasattr(m, "running_mean")]
    aux = deepcopy(made.net, {id(p): p for m in rest for p in m.parameters(recurse=False)})
    memory = torch.nn.Embedding(made.samples, made.classes).requires_grad_(False)
    return {"memory": memory, "aux": aux}


def begin(models, moment, settings):
    net, y, ids = models["encoder"], moment.y, moment.pool("unlabelled")
    u, v = (moment.outputs(lambda x: net.features(x, "z"), each) for each in (moment.ids, ids))
    centres = torch.stack([u[y == c].mean(0) for c in y.unique()])
    own, near = (F.cosine_similarity(z[:, None], centres, 2) for z in (u, v))
    inside = near.amax(1) > own.amax(1).mean() - 2 * own.amax(1).std()
    models["memory"].weight[ids] = near
    best = near.amax(1).topk(int(inside.sum()) // 10).indices
    moment.fill("plus", torch.cat([moment.ids, ids[best]]), torch.cat([y, near[best].argmax(1)]))
    moment.fill("inside", ids[inside])
    moment.fill("outside", ids[~inside])


def step(models, batch, row, settings, generator):
    views = [batch["plus"].x, *batch["inside"].views]
    z, weak, strong = models["main"](torch.cat(views)).float().chunk(3)
    sure, labels = weak.detach().softmax(1).max(1)
    losses = F.cross_entropy(strong, labels, reduction="none") * (sure >= 0.95)
    soft = (models["memory"](batch["outside"].ids) / 0.1).softmax(1)
    outside = F.cross_entropy(models["aux"](batch["outside"].x).float(), soft)
    return F.cross_entropy(z, batch["plus"].y) + losses.mean() + 0.5 * outside, {}


def evaluate(models, measured, settings):
    ids = measured.pool("unlabelled")
    score, known = models["memory"](ids).amax(1), measured.labels(ids) >= 0
    right = (score[known, None] > score[~known]).float()
    return {"unlabelled_auroc": float(right.mean())} if right.numel() else {}
