"""T-vMF similarity (T. Kobayashi 2021): a heavy-tailed function of the angle to a class' weight."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """The similarity (1 + cos) / (1 + kappa (1 - cos)) - 1, times a learnt scale."""

    kappa: float = field(default=16.0, metadata={"doc": "concentration", "low": 0})


def build(settings, width, classes):
    import torch
    from torch.nn import functional as F

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(classes, width) / width**0.5)
            self.scale = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            cosine = F.normalize(x) @ F.normalize(self.weight).T
            similarity = (1 + cosine) / (1 + settings.kappa * (1 - cosine)) - 1
            return (1 + F.softplus(self.scale)) * similarity

    return Head()
