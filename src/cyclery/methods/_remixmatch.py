"""What ReMixMatch's loss is made of, for ReMixMatch and for methods that have it as their core.

D. Berthelot et al., ReMixMatch (arXiv 1911.09785, section 3) and the code
google-research/remixmatch. Everything takes tensors, and draws from a generator that it is given.
``keep`` is a network whose running statistics a pass leaves alone; without one it moves them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise

from cyclery.common.lazy import F, torch
from cyclery.methods import _alignment
from cyclery.methods._mix import guess_passes, interleaved, mixed, permutation, shares
from cyclery.methods._rotations import QUARTERS
from cyclery.methods._ssl import passes

Function = Callable[["torch.Tensor"], "torch.Tensor"]


def targets(
    z: torch.Tensor,
    y: torch.Tensor,
    temperature: torch.Tensor,
    memory: torch.nn.Module | None = None,
    kind: _alignment.Kind = "average",
) -> torch.Tensor:
    """Return what unlabelled samples are trained on [N, K]: guesses, aligned, then sharpened.

    ``z`` [N, K] are the logits of their weak views, ``y`` [B] the labels of the labelled ones.
    ``memory`` is that of `_alignment`, which the two go into; without one nothing is aligned.
    """
    z = z.detach()
    if memory is not None:
        z = z + _alignment.alignment(memory, z.softmax(1), y, kind)
    # Of logits: q^(1/T) over its sum, of a q that is normalised or not.
    return (z / temperature).softmax(1)


def guess(net: Function, x: torch.Tensor, keep: torch.nn.Module | None) -> torch.Tensor:
    """Return the logits [N, K] of weak views x [N, C, H, W], in a training pass without a graph."""
    return guess_passes(net, [x], keep)[0]


def mixture_losses(
    net: Function,
    x: torch.Tensor,
    y: torch.Tensor,
    size: int,
    alpha: torch.Tensor,
    generator: torch.Generator,
    *,
    per_sample: bool = True,
    interleave: bool = True,
    keep: torch.nn.Module | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropies of mixtures, two scalars: of the first ``size``, of the others.

    Images x [n, C, H, W] with labels y [n, K], of which the first ``size`` are labelled ones, are
    each mixed with a random one of all, and pass in batches of ``size``, interleaved. Of these
    passes the last alone moves the running statistics of ``keep``, where it is given.
    """
    share = shares(alpha, len(x), generator, per_sample)
    x, y = mixed(x, y, share, permutation(len(x), generator, x.device))
    order = interleaved(len(x) // size, size, x.device) if interleave else None
    batches = (x if order is None else x.index_select(0, order)).split(size)
    # Of ``passes`` the first one moves them.
    z = torch.cat(passes(net, batches[::-1], "separate", keep)[::-1])
    if order is not None:
        z = z.index_select(0, order)
    return F.cross_entropy(z[:size], y[:size]), F.cross_entropy(z[size:], y[size:])


def unmixed_loss(
    net: Function, x: torch.Tensor, q: torch.Tensor, keep: torch.nn.Module | None
) -> torch.Tensor:
    """Return the mean cross-entropy [] of views x [N, C, H, W] as they are, with targets [N, K]."""
    return F.cross_entropy(_passed(net, x, keep), q)


def rotation_loss(
    function: Function, x: torch.Tensor, keep: torch.nn.Module | None
) -> torch.Tensor:
    """Return the mean cross-entropy [] of how far images were turned, a quarter of them each way.

    ``function`` makes logits [N, 4], of 0 to 3 quarter turns, of images [N, C, H, W].
    """
    turned, turns = quarters(x)
    return F.cross_entropy(_passed(function, turned, keep), turns)


def quarters(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return square images x [N, C, S, S], the i-th of four parts turned i times, and i [N]."""
    ends = [-(-turn * len(x) // QUARTERS) for turn in range(QUARTERS + 1)]
    parts = [x[start:end] for start, end in pairwise(ends)]
    turned = torch.cat([torch.rot90(part, turn, (2, 3)) for turn, part in enumerate(parts)])
    row = torch.arange(len(x), device=x.device)
    return turned, (QUARTERS * row).div(len(x), rounding_mode="floor")


def _passed(function: Function, x: torch.Tensor, keep: torch.nn.Module | None) -> torch.Tensor:
    from cyclery.models.layers import statistics_kept

    with nullcontext() if keep is None else statistics_kept(keep):
        return function(x).float()
