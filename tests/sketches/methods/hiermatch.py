"""HIERMATCH: heads for the levels of a hierarchy of labels, each on a part of the features.

A. Garg et al. (arXiv 2111.00164), full variant: coarser heads see finer features through a stopped
gradient. Every level has the losses of FixMatch.
"""

from __future__ import annotations

from dataclasses import dataclass

from cyclery.common.lazy import F, torch

VERSION = 1
TITLE = "HIERMATCH (sketch)"


@dataclass(frozen=True)
class Settings:
    """No settings."""


def streams(settings):
    return {"labelled": ("weak",), "unlabelled": ("weak", "strong")}


def modules(settings, made):
    groups = torch.tensor([[*range(made.classes)], *made.levels])
    sizes = [made.width - made.width // len(groups) * h for h in range(len(groups))]
    heads = map(torch.nn.Linear, reversed(sizes), groups.amax(1).add(1).tolist())
    found = torch.nn.ModuleList(heads)
    found.register_buffer("groups", groups)
    return {"heads": found}


def keeps(settings):
    return ("heads",)


def logits(models, x):
    v = models["main"].features(x)
    stopped, ends = v.detach(), [v.shape[1]]
    for head in models["heads"]:
        ends.append(v.shape[1] - head.in_features)
        yield head(torch.cat([v[:, ends[-1] : ends[-2]], stopped[:, ends[-2] :]], 1)).float()


def predict(models, x, settings):
    return next(logits(models, x))


def step(models, batch, row, settings, generator):
    u, loss = batch.unlabelled, 0
    found = logits(models, torch.cat([batch.x, *u.views]))
    for z, groups in zip(found, models["heads"].groups, strict=True):
        z, weak, strong = z.split([len(batch.y), len(u.y), len(u.y)])
        sure, guess = weak.detach().softmax(1).max(1)
        costs = F.cross_entropy(strong, guess, reduction="none") * (sure >= 0.95)
        loss = loss + F.cross_entropy(z, groups[batch.y]) + costs.mean()
    return loss, {}
