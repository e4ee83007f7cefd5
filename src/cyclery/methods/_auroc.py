"""The area under the ROC curve of a score, as the share of pairs that it puts in order."""

from __future__ import annotations

from cyclery.common.lazy import torch


def auroc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Return the share of pairs whose positive score [N] is above the negative [M]; ties half."""
    ordered, positive = negative.sort().values, positive.contiguous()
    below = torch.searchsorted(ordered, positive)
    below = below + torch.searchsorted(ordered, positive, right=True)
    return float(below.sum()) / (2 * len(positive) * len(negative))
