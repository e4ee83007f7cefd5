"""Batch norm in groups of a batch: the statistics that several devices would measure on one.

K. He et al., Momentum Contrast (arXiv 1911.05722), section 3.3, whose demonstration on CIFAR-10
divides a batch on one device likewise. Sample i of the batch is in group i mod groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclery.models.layers import batch_norms, uncompiled


@contextmanager
def grouped_norms(net: nn.Module, groups: int) -> Iterator[None]:
    """Inside, batch norm of ``net`` in training mode normalises each group of a batch by itself.

    The batch must divide into ``groups``. Running statistics move to the mean of those of all
    groups. Like ``statistics_kept`` it sets attributes and runs nothing on the device.
    """
    norms: list[Any] = batch_norms(net) if groups > 1 else []
    for norm in norms:
        # Of the instance, so it hides that of the class.
        norm.forward = partial(_normalised, norm, groups)
    try:
        with uncompiled(net):
            yield
    finally:
        for norm in norms:
            del norm.forward


def _normalised(norm: Any, groups: int, x: Tensor) -> Tensor:
    """Return x [B, C] or [B, C, H, W], where groups lie side by side as channels meanwhile."""
    if not norm.training:
        found: Tensor = type(norm).forward(norm, x)
        return found
    wide = x.reshape(len(x) // groups, groups * x.shape[1], *x.shape[2:])
    tracked = norm.track_running_stats
    mean, variance = (
        (norm.running_mean.repeat(groups), norm.running_var.repeat(groups))
        if tracked
        else (None, None)
    )
    weight, bias = (
        (norm.weight.repeat(groups), norm.bias.repeat(groups)) if norm.affine else (None, None)
    )
    wide = F.batch_norm(wide, mean, variance, weight, bias, True, norm.momentum, norm.eps)
    if mean is not None and variance is not None:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            norm.running_mean.copy_(mean.view(groups, -1).mean(0))
            norm.running_var.copy_(variance.view(groups, -1).mean(0))
    return wide.reshape(x.shape)
