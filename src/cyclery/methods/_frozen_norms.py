"""Normalisations between the blocks of a network, by constants of one batch.

I. Alabdulmohsin, H. Maennel, D. Keysers (arXiv 2109.00267, section 3), as the code
hlml/fortuitous_forgetting has it: y = (x - m) / s with the mean m and the unbiased deviation s of
each channel over samples and places of one batch, constants from then on, which nothing learns or
updates. OWN DEFINITION: a channel that does not vary in that batch has s = 1.

Each has two buffers in a memory: its moments [2, C], m = 0 and s = 1 while it is switched off, and
whether they are due to be taken from the next batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cyclery.common.lazy import torch

CONSTANTS = "constants"
BEFORE = "before"
# A deviation below this is none.
NONE = 1e-6


def blocks_of(net: Any) -> list[list[torch.nn.Module]]:
    """Return the modules that make the features of a network, in blocks."""
    from cyclery.models._classifier import blocks

    return blocks(net)


def add(memory: torch.nn.Module, made: Any, after: Iterable[int], names: Iterable[str]) -> None:
    """Add to a memory what normalisations after some blocks have, switched off, by these names."""
    from cyclery.models.layers import evaluating

    x = torch.zeros(1, *made.shape)
    with evaluating(made.net), torch.no_grad():
        for index, block in enumerate(blocks_of(made.net)):
            for module in block:
                x = module(x)
            if index in after:
                memory.register_buffer(f"due_{index}", torch.zeros(()))
                for name in names:
                    off = torch.stack([torch.zeros(x.shape[1]), torch.ones(x.shape[1])])
                    memory.register_buffer(f"{name}_{index}", off)


def switch_on(memory: torch.nn.Module, after: int) -> None:
    """Let the normalisation after a block take its constants from the next batch."""
    memory.get_buffer(f"due_{after}").fill_(1.0)


def keep(memory: torch.nn.Module) -> None:
    """Remember the constants as those of the network before."""
    buffers = dict(memory.named_buffers())
    for name, buffer in buffers.items():
        if name.startswith(f"{BEFORE}_"):
            buffer.copy_(buffers[name.replace(BEFORE, CONSTANTS)])


def features(
    net: Any, x: torch.Tensor, memory: torch.nn.Module, name: str = CONSTANTS, learn: bool = False
) -> torch.Tensor:
    """Return the features [B, D] of a network between whose blocks there are normalisations.

    ``learn`` says whether those that are due take their constants from these images.
    """
    buffers = dict(memory.named_buffers())
    for index, block in enumerate(blocks_of(net)):
        for module in block:
            x = module(x)
        if (moments := buffers.get(f"{name}_{index}")) is not None:
            if learn:
                _take(moments, buffers[f"due_{index}"], x.detach().float())
            mean, deviation = moments.to(x.dtype).view(2, 1, -1, *[1] * (x.ndim - 2))
            x = (x - mean) / deviation
    return x


def _take(moments: torch.Tensor, due: torch.Tensor, x: torch.Tensor) -> None:
    """Make moments [2, C] those of x [B, C, ...] where they are due, which they then are not."""
    deviation, mean = torch.std_mean(x, (0, *range(2, x.ndim)))
    deviation = torch.where(deviation > NONE, deviation, 1.0)
    moments.copy_(torch.where(due > 0, torch.stack([mean, deviation]), moments))
    due.zero_()
