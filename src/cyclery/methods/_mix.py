"""Mixtures of samples and guessed labels, as MixMatch and its relatives make them.

D. Berthelot et al., MixMatch (arXiv 1905.02249, section 3) and the code google-research/mixmatch.
Everything takes tensors and draws from a generator that it is given. Several heads, such as those
of a hierarchy of labels, may share a mixture: their labels, and their logits, are columns that are
joined before it and split after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from cyclery.common.lazy import F, torch
from cyclery.methods._ssl import passes


def sharpen(q: torch.Tensor, temperature: torch.Tensor | float) -> torch.Tensor:
    """Return q_c^(1/T) / sum_j q_j^(1/T) [N, K] of probabilities q [N, K] (equation 7)."""
    return (q.log() / temperature).softmax(1)


def guessed(logits: Sequence[torch.Tensor], temperature: torch.Tensor | float) -> torch.Tensor:
    """Return the label [N, K] that K views guess: probabilities averaged, then sharpened.

    ``logits`` has [N, K] of each view. No gradient flows through a guess (equation 6).
    """
    probabilities = torch.stack([each.detach().softmax(1) for each in logits])
    return sharpen(probabilities.mean(0), temperature)


@contextmanager
def _casts_not_remembered() -> Iterator[None]:
    """Inside, autocast keeps no copies of weights: one made without a graph would stay so."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def guess_passes(
    function: Callable[[torch.Tensor], torch.Tensor],
    views: Sequence[torch.Tensor],
    keep: torch.nn.Module | None = None,
) -> list[torch.Tensor]:
    """Return ``function`` of each view [N, ...] in float32, each in a pass of its own, no graph.

    The passes leave the running statistics of ``keep`` alone, where a network is given. They may
    come before the passes that are trained, under autocast too.
    """
    from cyclery.models.layers import statistics_kept

    with torch.no_grad(), _casts_not_remembered(), ExitStack() as stack:
        if keep is not None:
            stack.enter_context(statistics_kept(keep))
        return [function(view).float() for view in views]


def shares(
    alpha: torch.Tensor, n: int, generator: torch.Generator, per_sample: bool = True
) -> torch.Tensor:
    """Return max(l, 1 - l) [n] of l from Beta(alpha, alpha): what a sample keeps of itself.

    ``alpha`` [] is on the device of the generator. One l for each sample, or one that all share.
    """
    # A Beta from two Gammas, because torch.distributions takes no generator.
    drawn = torch._standard_gamma(alpha.expand(2, n if per_sample else 1), generator=generator)
    first, second = drawn.unbind()
    return (torch.maximum(first, second) / (first + second)).expand(n)


def permutation(n: int, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Return 0 to n - 1 in a random order, int64 [n]."""
    return torch.rand(n, generator=generator, device=device).argsort()


def mirrored(n: int, device: torch.device) -> torch.Tensor:
    """Return n - 1 to 0, int64 [n]: each sample's partner is as far from the other end."""
    return torch.arange(n - 1, -1, -1, device=device)


def blended(values: torch.Tensor, share: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return s_i v_i + (1 - s_i) v_other(i) of values [n, ...], shares [n] and rows [n].

    A sample whose other is itself stays as it is.
    """
    weight = share.view(-1, *[1] * (values.dim() - 1))
    return values.index_select(0, other).lerp(values, weight)


def mixed(
    x: torch.Tensor, y: torch.Tensor, share: torch.Tensor, other: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images [n, C, H, W] and labels [n, K], ``blended`` alike (equations 10 and 11)."""
    return blended(x, share, other), blended(y, share, other)


def interleaved(parts: int, size: int, device: torch.device | None = None) -> torch.Tensor:
    """Return an order of ``parts`` batches of ``size`` rows each, int64 [parts * size].

    Every batch is cut into as many groups as there are batches, the last ones larger by one where
    it does not divide; group i of the first batch changes places with group i of batch i. So the
    first batch becomes a sample of all, and its batch statistics with it. The order is its own
    inverse. Google's code interleaves so (``interleave`` of its mixmatch.py).
    """
    row, batch = torch.arange(size, device=device), torch.arange(parts, device=device)[:, None]
    least, small = size // parts, parts - size % parts
    late = small + (row - small * least).div(least + 1, rounding_mode="floor")
    group = torch.where(row < small * least, row // max(least, 1), late)
    first = group * size + row
    return torch.cat([first, torch.where(batch == group, row, batch * size + row)[1:].flatten()])


def interleaved_passes(
    function: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    size: int,
    keep: torch.nn.Module | None = None,
    interleave: bool = True,
) -> torch.Tensor:
    """Return ``function`` of images x [n, C, H, W] in their order, float32 [n, K].

    They pass in batches of ``size``, interleaved before and put back after. Of the passes only the
    first updates the running statistics of ``keep``, where a network is given, else every one.
    """
    if not interleave:
        return torch.cat(passes(function, x.split(size), "separate", keep))
    order = interleaved(len(x) // size, size, x.device)
    batches = x.index_select(0, order).split(size)
    return torch.cat(passes(function, batches, "separate", keep)).index_select(0, order)


def correct(q: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the share [] of guesses q [N, K] whose likeliest class is the hidden label y [N]."""
    return (q.argmax(1) == y).to(q.dtype).mean()


def loss_pair(z: torch.Tensor, y: torch.Tensor, labelled: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the labelled and the unlabelled loss of mixtures (equations 3 and 4), two scalars.

    Of logits z [N, K] and labels y [N, K] the first ``labelled`` rows are mixtures that are mostly
    labelled samples: the cross-entropy, a mean over them. Of the others the squared distance of
    probabilities, a mean over rows and classes.
    """
    loss_x = F.cross_entropy(z[:labelled], y[:labelled])
    return loss_x, F.mse_loss(z[labelled:].softmax(1), y[labelled:])
