"""Pseudo-labels: a new network is trained on what a parent says of the samples without labels.

X. Zhai et al., S4L (arXiv 1905.03670), section 4.2: labelled samples keep their labels, others get
the parent's likeliest class whatever its confidence, and training starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from cyclery.common.lazy import F, torch
from cyclery.methods import Stream

VERSION = 1
TITLE = "Retraining on pseudo-labels (sketch)"


@dataclass(frozen=True)
class Settings:
    """There are none."""


def streams(settings):
    return {"all": Stream(("weak",), "own")}


def parents(settings):
    return ("teacher",)


def begin(models, moment, settings):
    ids = moment.pool("unlabelled")
    labels = moment.answers("teacher", ids).argmax(1)
    known = torch.isin(ids, moment.ids)
    labels[known] = moment.labels(ids[known])
    moment.fill("all", ids, labels)


def step(models, batch, row, settings, generator):
    return F.cross_entropy(models["main"](batch["all"].x).float(), batch["all"].y), {}
