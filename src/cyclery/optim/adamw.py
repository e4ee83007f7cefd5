"""AdamW, as `torch.optim.AdamW` but for rounding."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclery.optim._adam import AdamRule
from cyclery.optim._settings import BETA2, EPS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Adam with decoupled weight decay; the momentum schedule is its beta1."""

    beta2: float = field(default=0.999, metadata=BETA2)
    eps: float = field(default=1e-8, metadata=EPS)


class Rule(AdamRule):
    """Adam, whose decay shrinks the weights by lr times the decay."""

    coupled = False
