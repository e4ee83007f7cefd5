"""Settings of networks without batch statistics whose norms follow the activations; no torch.

S. De et al. (arXiv 2204.13650): ReLU, group norm, convolution, and standardised weights. The order
and what is left out are switches, for the ablations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cyclery.models._settings import NORM_EPS, ModelSettings

Order = Literal["relu_norm", "norm_relu"]


@dataclass(frozen=True)
class NormLastSettings(ModelSettings):
    """Norm, groups, order and standardised weights of such a network."""

    norm: Literal["group", "none"] = field(
        default="group",
        metadata={"doc": "normalisation: group norm, or none (layers have a bias in any case)"},
    )
    groups: int = field(
        default=16,
        metadata={
            "doc": "groups of channels; of a number that they do not divide, as many as divide "
            "both",
            "low": 1,
        },
    )
    order: Order = field(
        default="relu_norm",
        metadata={
            "doc": "relu_norm: the norm takes what the ReLU gives (De et al. 2022); norm_relu: the "
            "usual order"
        },
    )
    standardised: bool = field(
        default=True,
        metadata={
            "doc": "weights before the head are standardised, with a gain for each output (De et "
            "al. 2022)"
        },
    )
    norm_eps: float = field(default=1e-5, metadata=NORM_EPS)
