"""HIERMATCH (A. Garg et al., arXiv 2111.00164) with coarse labels: each level has its pools."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import Stream, hiermatch

VERSION = 1
TITLE = "HIERMATCH with coarse labels (sketch)"
keeps, predict, logits = hiermatch.keeps, hiermatch.predict, hiermatch.logits


@dataclass(frozen=True)
class Settings:
    """Settings of the levels."""

    levels: int = field(default=2, metadata={"doc": "levels, the classes among them", "low": 2})


def streams(settings):
    found = {"x1": Stream(("weak",)), "u1": Stream(("weak", "strong"), "unlabelled", "mu")}
    for h in range(2, settings.levels + 1):
        found[f"x{h}"] = Stream(("weak",), f"labelled.{h}")
        found[f"u{h}"] = Stream(("weak", "strong"), f"unlabelled.{h}", "mu")
    return found


def modules(settings, made):
    if settings.levels != (found := 1 + len(made.levels)):
        raise UserError(f"method.levels: must be {found}, as `split.hierarchy` has them.")
    return hiermatch.modules(settings, made)


def measures(settings):
    return tuple(f"test_level_{h}_accuracy" for h in range(1, settings.levels + 1))


def evaluate(models, measured, settings):
    ids, groups = measured.pool("test"), models["heads"].groups
    z = measured.outputs(lambda x: torch.stack([z.argmax(1) for z in logits(models, x)], 1), ids)
    right = (z == groups[:, measured.labels(ids)].T).float().mean(0)
    return dict(zip(measures(settings), right.tolist(), strict=True))


def step(models, batch, row, settings, generator):
    loss = 0
    for h in range(settings.levels):
        x, u = batch[f"x{h + 1}"], batch[f"u{h + 1}"]
        z = list(logits(models, torch.cat([x.x, *u.views])))[h]
        z, weak, strong = z.split([len(x.y), len(u.y), len(u.y)])
        sure, guess = weak.detach().softmax(1).max(1)
        costs = F.cross_entropy(strong, guess, reduction="none") * (sure >= 0.95)
        loss = loss + F.cross_entropy(z, x.y) + costs.mean()
    return loss, {}
