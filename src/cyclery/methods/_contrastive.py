"""Contrastive losses of two views of N images, and what is watched beside them.

Vectors z [2N, D] are those of the first view of all images, then of the second, in the same order.
A row of s [2N, 2N] has what an anchor is like to every vector; its positive is the other view of
its image, its negatives are vectors of other images: of ``both`` views, or of the ``other`` view
than its own alone.

Sources: T. Chen et al., SimCLR (arXiv 2002.05709), section 2.1 and table 2; F. Schroff et al.,
FaceNet (arXiv 1503.03832), section 3.2, for semi-hard negatives.
"""

from __future__ import annotations

from typing import Literal

from cyclery.common.errors import UserError
from cyclery.common.lazy import F, torch

Negatives = Literal["both", "other"]
Mining = Literal["all", "semi_hard"]


def check_pairs(images: int) -> None:
    """Raise a UserError where the views of a batch, so many, are of one image."""
    if images < 4:
        raise UserError(
            "batch: must be at least 2, for views are compared with those of other images (found "
            f"{images // 2})."
        )


def unit(z: torch.Tensor) -> torch.Tensor:
    """Return vectors z [..., D] with an L2 norm of 1."""
    return F.normalize(z, dim=-1)


def similarities(z: torch.Tensor) -> torch.Tensor:
    """Return the products of z [M, D] with each other, [M, M], in float32 under autocast too."""
    with torch.autocast(z.device.type, enabled=False):
        z = z.float()
        return z @ z.T


def nt_xent(
    s: torch.Tensor, temperature: torch.Tensor | float, negatives: Negatives = "both"
) -> torch.Tensor:
    """Return the mean over the anchors of -log softmax(s / temperature) at the positive.

    The softmax is over positive and negatives.
    """
    rows = s / temperature
    positive, others = _masks(s, negatives)
    rows = rows.masked_fill(~(positive | others), float("-inf"))
    return F.cross_entropy(rows, torch.arange(len(s), device=s.device).roll(len(s) // 2))


def nt_logistic(
    s: torch.Tensor,
    temperature: torch.Tensor | float,
    negatives: Negatives = "both",
    mining: Mining = "all",
    margin: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """Return the mean over the anchors of -log sigma(s+ / t) - log sigma(-s- / t).

    t is the temperature. The second term is a mean over an anchor's negatives, or that of its
    semi-hard one.
    """
    found, weights = _negatives(s, negatives, mining, margin)
    attracted = _softplus(-_positives(s) / temperature)
    repelled = (weights * _softplus(found / temperature)).sum(1)
    return (attracted + repelled).mean()


def margin_triplet(
    s: torch.Tensor,
    margin: torch.Tensor | float,
    negatives: Negatives = "both",
    mining: Mining = "all",
) -> torch.Tensor:
    """Return the mean over the anchors of max(s- - s+ + margin, 0).

    It is a mean over an anchor's negatives, or that of its semi-hard one.
    """
    found, weights = _negatives(s, negatives, mining, margin)
    costs = (found - _positives(s)[:, None] + margin).clamp_min(0)
    return (weights * costs).sum(1).mean()


def _masks(s: torch.Tensor, negatives: Negatives) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which of s [2N, 2N] are positives and which negatives."""
    index = torch.arange(len(s), device=s.device)
    n = len(s) // 2
    same = (index % n)[:, None] == index % n
    across = (index < n)[:, None] != (index < n)
    return same & across, ~same & across if negatives == "other" else ~same


def _positives(s: torch.Tensor) -> torch.Tensor:
    """Return the similarity of each anchor and its positive, [2N]."""
    n = len(s) // 2
    return torch.cat([s.diagonal(n), s.diagonal(-n)])


def _negatives(
    s: torch.Tensor, negatives: Negatives, mining: Mining, margin: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return similarities of negatives [2N, M] and their weights, which add up to 1 in a row.

    Semi-hard is the negative that is nearest to the anchor among those that are further from it
    than the positive, by less than the margin; a row that has none weighs 0.
    """
    _, others = _masks(s, negatives)
    if mining == "all":
        return s, others / others.sum(1, keepdim=True)
    positive = _positives(s).detach()[:, None]
    fits = others & (s < positive) & (s > positive - margin)
    place = s.detach().masked_fill(~fits, float("-inf")).argmax(1, keepdim=True)
    return s.gather(1, place), fits.any(1, keepdim=True).to(s.dtype)


def _softplus(x: torch.Tensor) -> torch.Tensor:
    """Return -log sigma(-x), in a form whose last bits no neighbour changes in a pack."""
    return torch.stack([torch.zeros_like(x), x], -1).logsumexp(-1)


def contrastive_accuracy(s: torch.Tensor) -> torch.Tensor:
    """Return how often a first view is more like its second view than like any other's."""
    n = len(s) // 2
    return (s[:n, n:].argmax(1) == torch.arange(n, device=s.device)).float().mean()


def contrastive_entropy(s: torch.Tensor, temperature: torch.Tensor | float) -> torch.Tensor:
    """Return the mean entropy, in nats, of the softmax of first views over second views."""
    n = len(s) // 2
    p = (s[:n, n:] / temperature).softmax(1)
    return torch.special.entr(p).sum(1).mean()


def spread(z: torch.Tensor) -> torch.Tensor:
    """Return sqrt(D) times the mean deviation of directions z / |z| [M, D] over the M vectors.

    It is near 1 where they spread over the sphere, and 0 where they have collapsed to one.
    """
    return unit(z).std(0).mean() * z.shape[1] ** 0.5
