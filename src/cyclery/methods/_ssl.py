"""Helpers of the semi-supervised methods: forward passes and figures of pseudo-labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import torch

Forward = Literal["joint", "separate"]
Statistics = Literal["all", "labelled"]


def check_passes(forward: Forward, statistics: Statistics) -> None:
    """Raise a UserError where the statistics of one joint pass should come from a part of it."""
    if forward == "joint" and statistics == "labelled":
        raise UserError("statistics: labelled needs forward: separate (found joint).")


def passes(
    function: Callable[[torch.Tensor], torch.Tensor],
    parts: Sequence[torch.Tensor],
    forward: Forward,
    keep: torch.nn.Module | None = None,
) -> list[torch.Tensor]:
    """Return ``function`` of each part [B_i, ...] in float32: one pass over all, or one each.

    In a joint pass the parts share their batch statistics. Of separate passes only the first
    updates the running statistics of the network ``keep``, where one is given.
    """
    from cyclery.models.layers import statistics_kept

    if forward == "joint":
        return list(function(torch.cat(list(parts))).float().split([len(part) for part in parts]))
    found = [function(parts[0]).float()]
    with nullcontext() if keep is None else statistics_kept(keep):
        found += [function(part).float() for part in parts[1:]]
    return found


def averaged(net: torch.nn.Module, x: torch.Tensor, evaluation: bool) -> torch.Tensor:
    """Return the logits [N, K] of the averaged network, without a graph."""
    from cyclery.models.layers import evaluating

    with torch.no_grad():
        if not evaluation:
            return net(x).float()
        with evaluating(net):
            return net(x).float()


def pseudo_figures(
    mask: torch.Tensor, labels: torch.Tensor, y: torch.Tensor, classes: int
) -> dict[str, torch.Tensor]:
    """Return the logged figures of pseudo-labels [N] of which ``mask`` [N], 0 or 1, are used.

    ``mask_rate``: the share that is used. ``pseudo_correct``: the share that is used and equals
    the hidden label ``y`` [N], so the accuracy of those that are used is its ratio to
    ``mask_rate``. ``pseudo_classes``: the effective number of classes among those that are used,
    the exponential of the entropy of their shares; 0 where none is used.
    """
    counts = (mask[:, None] * (labels[:, None] == torch.arange(classes, device=y.device))).sum(0)
    used = counts.sum()
    entropy = torch.special.entr(counts / used.clamp_min(1)).sum()
    return {
        "mask_rate": mask.mean(),
        "pseudo_correct": (mask * (labels == y)).mean(),
        "pseudo_classes": entropy.exp() * (used > 0),
    }
