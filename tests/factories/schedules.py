"""Clocks, and what torch's schedulers set on them."""

from __future__ import annotations

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler

from cyclery.schedules import Clock


def clock(updates: int, epochs: int = 1) -> Clock:
    """Return a clock of equal epochs."""
    return Clock(np.repeat(np.arange(epochs), updates // epochs), epochs)


def epochs(count: int) -> Clock:
    """Return a clock of one update per epoch."""
    return clock(count, count)


def optimiser(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)


def torch_rates(scheduler: LRScheduler, updates: int, key: str = "lr") -> np.ndarray:
    """Return what torch's scheduler sets before each update."""
    rates = []
    for t in range(updates):
        rates.append(float(scheduler.optimizer.param_groups[0][key]))
        scheduler.optimizer.step()
        if t < updates - 1:
            scheduler.step()
    return np.array(rates)
