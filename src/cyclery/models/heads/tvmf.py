"""T-vMF similarity: logits fall off from the direction of a class as Student's t does.

T. Kobayashi, T-vMF Similarity for Regularizing Intra-Class Feature Distribution (CVPR 2021), as
L. Brigato et al. (arXiv 2212.12478) compare it. With the cosine c of a feature vector and a class'
weight, which has no bias,

    logit = s ((1 + c) / (1 + kappa (1 - c)) - 1),   s = 1 + softplus(s0)

where s0, which starts at 0, is learnt. With a kappa of 0 the similarity is the cosine itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings:
    """The similarity, and a learnt scale; weights start as those of a linear layer do."""

    kappa: float = field(
        default=16.0,
        metadata={
            "doc": "concentration: how fast the similarity falls; far larger ones would magnify "
            "the rounding of a cosine of 1",
            "low": 0.0,
            "high": 1e4,
        },
    )


def build(settings: Settings, width: int, classes: int) -> nn.Module:
    """Return the head, [B, width] -> [B, classes]."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    class Head(nn.Module):
        """Similarities to each class, times the scale."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(nn.Linear(width, classes, bias=False).weight.detach())
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            # In bfloat16 cosines near 1 are all the same, and there the similarity is steepest.
            # Meta tensors, which count operations, know no autocast.
            with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
                x = x.to(self.weight.dtype)
                cosine = F.normalize(x) @ F.normalize(self.weight).T
            similarity = (1 + cosine) / (1 + settings.kappa * (1 - cosine)) - 1
            return (1 + F.softplus(self.scale)) * similarity

    return Head()
