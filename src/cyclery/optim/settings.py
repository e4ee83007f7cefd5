"""Settings of the optimisers that do not change with time; no torch is needed to read them.

Learning rate, momentum (beta1 of Adam) and both weight decays are schedules and no settings.
A field's metadata holds ``doc`` and the limits of its value: ``low`` and ``high`` (inclusive),
``above`` and ``below`` (exclusive).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from cyclery.common.errors import UserError

Decay = Literal["coupled", "decoupled"]

_BETA2: dict[str, Any] = {"doc": "decay of the mean squared gradient", "low": 0.0, "below": 1.0}
_EPS: dict[str, Any] = {"doc": "added to the denominator", "above": 0.0}


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Refuses a share of 1 or more, with which a running mean would never move."""

    def __post_init__(self) -> None:
        for item in fields(self):
            found, limit = getattr(self, item.name), item.metadata.get("below")
            if limit is not None and found >= limit:
                raise UserError(f"{item.name}: must be < {limit} (found {found})")


@dataclass(frozen=True, kw_only=True)
class Sgd(_Settings):
    """Stochastic gradient descent with momentum."""

    nesterov: bool = field(
        default=True, metadata={"doc": "look ahead along the momentum (Nesterov)"}
    )
    decay: Decay = field(
        default="coupled",
        metadata={
            "doc": "`coupled` adds the decay to the gradient (L2); `decoupled` shrinks the "
            "weights by lr times the decay"
        },
    )
    dampening: float = field(
        default=0.0,
        metadata={
            "doc": "share of a gradient kept out of the momentum; 0 with Nesterov",
            "low": 0.0,
            "below": 1.0,
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.dampening:
            raise UserError(
                f"dampening: {self.dampening} is not allowed with nesterov: true; "
                "set one of them to 0 or false."
            )


@dataclass(frozen=True, kw_only=True)
class Adam(_Settings):
    """Adam with L2 added to the gradient; the momentum schedule is its beta1."""

    beta2: float = field(default=0.999, metadata=_BETA2)
    eps: float = field(default=1e-8, metadata=_EPS)


@dataclass(frozen=True, kw_only=True)
class AdamW(_Settings):
    """Adam with decoupled weight decay; the momentum schedule is its beta1."""

    beta2: float = field(default=0.999, metadata=_BETA2)
    eps: float = field(default=1e-8, metadata=_EPS)


@dataclass(frozen=True, kw_only=True)
class RmsProp(_Settings):
    """RMSprop with momentum after scaling, and L2."""

    alpha: float = field(default=0.99, metadata=_BETA2)
    eps: float = field(default=1e-8, metadata=_EPS)


@dataclass(frozen=True, kw_only=True)
class AdaGrad(_Settings):
    """AdaGrad with L2; it has no momentum, whose schedule it ignores."""

    eps: float = field(default=1e-10, metadata=_EPS)


@dataclass(frozen=True, kw_only=True)
class AdaDelta(_Settings):
    """AdaDelta with L2; it has no momentum, whose schedule it ignores."""

    rho: float = field(default=0.9, metadata=_BETA2)
    eps: float = field(default=1e-6, metadata=_EPS)


SETTINGS: dict[str, type] = {
    "sgd": Sgd,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RmsProp,
    "adagrad": AdaGrad,
    "adadelta": AdaDelta,
}
