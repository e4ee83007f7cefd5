"""MoCo v2: the other view of an image is found among the vectors of past images, kept in a queue.

K. He et al., Momentum Contrast (CVPR 2020, arXiv 1911.05722), algorithm 1, with the projector of
X. Chen et al., MoCo v2 (arXiv 2003.04297), and the margin of B. Zhao and X. Wen, Distilling Visual
Priors from Self-Supervised Learning (arXiv 2008.00261), section 2.1, of which it is the first
stage. With the unit vectors q of the first view, by the trained network and projector, k of the
second, by the averages of both, and the K keys n of past updates in the queue

    loss = mean of -log(exp((q k - margin) / T) / (exp((q k - margin) / T) + sum_n exp(q n / T)))

after which the batch's keys take the places of the oldest ones. No gradient flows into keys; a
margin of 0 is MoCo v2. At first the queue has random unit vectors. The averages move after the
optimiser step (``ema_decay`` 0.999): they are what the next update's keys are made with, as where
the code moves them before a pass. With ``ema_buffers: own`` their batch norm, in training mode as
in the code, has running statistics of its own, which nothing reads.

Batch norm tells a query from its key's company where both stand in the same group of samples. So
every batch norm, of both networks, normalises ``groups`` of a batch apart (the code's stand-in for
so many devices), and keys are shuffled between groups before their pass. Running statistics move to
the mean of those of all groups. A batch that does not divide has as many groups as it can, where
the code fails.

A queue longer than the training set has keys of the query's own image, from epochs past. The code
leaves them among the negatives, and so do we (``own_keys: negatives``); ``left_out`` is a control
(OWN DEFINITION). The code trains a linear classifier on detached features beside it, to choose
settings by; here that is the probe ``linear``, of frozen features, on validation images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch
from cyclery.methods import Stream
from cyclery.methods._contrastive import spread, unit
from cyclery.methods._projection import mlp, projected
from cyclery.schedules import Quantity

VERSION = 1
TITLE = "MoCo v2 with a margin"

SIZE: dict[str, Any] = {"low": 1, "high": 65_536}


@dataclass(frozen=True)
class Settings:
    """Settings of queue, loss and projector; the defaults are those of Distilling Visual Priors."""

    keys: int = field(
        default=4096, metadata={"doc": "keys in the queue (K)", "low": 2, "high": 1_000_000}
    )
    temperature: Quantity = field(
        default=0.07, metadata={"doc": "divides cosines; MoCo v2 has 0.2 on ImageNet", "above": 0.0}
    )
    margin: Quantity = field(
        default=0.6,
        metadata={"doc": "taken off the cosine of a positive; 0: MoCo", "low": 0.0, "high": 2.0},
    )
    hidden: int | None = field(
        default=None,
        metadata={"doc": "hidden units of the projector; null: as many as features", **SIZE},
    )
    output: int = field(default=128, metadata={"doc": "length of a key", **SIZE})
    groups: int = field(
        default=8,
        metadata={"doc": "parts of a batch that batch norm sees, or fewer, which divide the batch "
                  "into equal parts of two images at least; 1: all of it", "low": 1, "high": 1024},
    )  # fmt: skip
    own_keys: Literal["negatives", "left_out"] = field(
        default="negatives",
        metadata={"doc": "what keys of a query's own image in the queue are, from updates before"},
    )
    pool: Literal["train", "unlabelled"] = field(
        default="train", metadata={"doc": "samples that are looked at"}
    )


def streams(settings: Settings) -> dict[str, Stream]:
    """Return the one stream: a view for the query, and one for the key."""
    return {"pairs": Stream(("strong", "strong"), settings.pool)}


def uses_ema(settings: Settings) -> bool:
    """Say that the averages make the keys."""
    return True


# In training mode.
trains_ema = uses_ema


def averages(settings: Settings) -> bool:
    """Say that the network of the queries is evaluated and handed on."""
    return False


def classifies(settings: Settings) -> bool:
    """Say that no labels train the head."""
    return False


def keeps(settings: Settings) -> tuple[str, ...]:
    """Return what is handed on beside the network."""
    return ("projector",)


def forwards(settings: Settings, images: dict[str, int]) -> int:
    """Return the images that pass: both views. A UserError where a batch is beyond the queue."""
    batch = images["pairs"] // 2
    if batch > settings.keys:
        raise UserError(
            f"method.keys: must be at least the batch, whose keys the queue takes in (found "
            f"{settings.keys}, batch {batch})."
        )
    return images["pairs"]


def modules(settings: Settings, made: Any) -> dict[str, torch.nn.Module]:
    """Return the projector, and the queue: a ring of keys with the ids of their images."""
    queue = torch.nn.Module()
    queue.register_buffer("keys", unit(torch.randn(settings.keys, settings.output)))
    queue.register_buffer("ids", torch.full((settings.keys,), -1, dtype=torch.int64))
    # The place of the oldest key, where the next one goes.
    queue.register_buffer("oldest", torch.zeros(1, dtype=torch.int64))
    width: int = made.width
    projector = mlp(width, settings.hidden or width, settings.output, hidden_norm=False)
    return {"projector": projector, "queue": queue}


def features(
    models: dict[str, torch.nn.Module], x: torch.Tensor, settings: Settings
) -> dict[str, torch.Tensor]:
    """Return h as ``features``, and ``z`` behind the projector, of images [B, C, H, W]."""
    return projected(models, x)


def groups_of(batch: int, most: int) -> int:
    """Return into how many equal parts of two images at least a batch divides, at most ``most``."""
    fits = (d for d in range(most, 1, -1) if batch % d == 0 and batch > d)
    return next(fits, 1)


def _keys(
    models: dict[str, torch.nn.Module], x: torch.Tensor, groups: int, generator: torch.Generator
) -> torch.Tensor:
    """Return the unit vectors [B, D] of the averages, of images shuffled between groups."""
    from cyclery.models.layers.grouped import grouped_norms

    net: Any = models["ema"]
    order = torch.rand(len(x), generator=generator, device=x.device).argsort()
    with torch.no_grad(), grouped_norms(net, groups):
        k = unit(models["ema.projector"](net.features(x.index_select(0, order))).float())
        return k.index_select(0, order.argsort())


def logits_of(
    q: torch.Tensor,
    k: torch.Tensor,
    queue: torch.Tensor,
    row: dict[str, torch.Tensor],
    left_out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return logits [B, 1 + K], the positive first, of unit vectors q, k [B, D], queue [K, D].

    Where ``left_out`` [B, K] is true a key is no negative.
    """
    with torch.autocast(q.device.type, enabled=False):
        positive = (q * k).sum(1, keepdim=True) - row["margin"]
        negatives = q @ queue.T
    if left_out is not None:
        negatives = negatives.masked_fill(left_out, float("-inf"))
    return torch.cat([positive, negatives], 1) / row["temperature"]


def _enqueue(queue: Any, k: torch.Tensor, ids: torch.Tensor) -> None:
    """Put keys [B, D] of images [B] in the places of the oldest ones, around the end."""
    size = len(queue.keys)
    places = (queue.oldest + torch.arange(len(k), device=k.device)).remainder(size)
    queue.keys.index_copy_(0, places, k)
    queue.ids.index_copy_(0, places, ids)
    queue.oldest.add_(len(k)).remainder_(size)


def step(
    models: dict[str, torch.nn.Module],
    batch: Any,
    row: dict[str, torch.Tensor],
    settings: Settings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss; how often a query finds its key, and how far q spreads, is logged."""
    from cyclery.models.layers.grouped import grouped_norms

    queue: Any = models["queue"]
    pairs = batch["pairs"]
    first, second = pairs.views
    groups = groups_of(len(first), settings.groups)
    # The trained network goes first: under autocast a pass without a graph must not cast weights.
    with grouped_norms(models["main"], groups):
        q = unit(projected(models, first)["z"].float())
    k = _keys(models, second, groups, generator)
    own = pairs.ids[:, None] == queue.ids if settings.own_keys == "left_out" else None
    # A copy, for the backward pass needs the keys that are overwritten now.
    logits = logits_of(q, k, queue.keys.clone(), row, own)
    _enqueue(queue, k, pairs.ids)
    zeros = torch.zeros(len(q), dtype=torch.int64, device=q.device)
    with torch.no_grad():
        found = (q * k).sum(1) > logits[:, 1:].max(1).values * row["temperature"]
        logs = {"contrastive_accuracy": found.float().mean(), "collapse": spread(q)}
    return F.cross_entropy(logits, zeros), logs
