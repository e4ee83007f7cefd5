"""A perceptron in the manner of the private WRN: norms after activations, standardised weights.

OWN DEFINITION: small, for digits. S. De et al. (arXiv 2204.13650) have convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from cyclery.common.errors import UserError
from cyclery.models._limits import check_weights
from cyclery.models._norm_last import NormLastSettings
from cyclery.models._settings import Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Settings(NormLastSettings):
    """Perceptron of private training: linear, ReLU, group norm for each hidden width."""

    hidden: tuple[int, ...] = field(
        default=(64, 64),
        metadata={"doc": "units of each hidden layer", "low": 1, "high": 100_000},
    )

    def check(self, where: str) -> None:
        """Raise a UserError where there is no hidden layer, or too much of them."""
        super().check(where)
        if not self.hidden:
            raise UserError(f"{where}.hidden: must list at least one layer (found []).")
        check_weights(sum(a * b for a, b in pairwise(self.hidden)), where, "hidden")


def build(settings: Settings, shape: Shape, classes: int) -> nn.Module:
    """Return the perceptron; its layers have biases, and are standardised but for the head."""
    from torch import nn

    from cyclery.models._activated import activated, drawn
    from cyclery.models._classifier import Classifier
    from cyclery.models.layers.standardised import StandardisedLinear

    linear = StandardisedLinear if settings.standardised else nn.Linear
    net = Classifier(settings.hidden[-1], classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise((prod(shape), *settings.hidden)):
        layers += [linear(inputs, outputs), *activated(settings, outputs)]
    net.body = nn.Sequential(*layers)
    return drawn(net, settings)
