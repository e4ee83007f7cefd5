"""Privacy loss that training spends under (epsilon, delta) differential privacy."""

from __future__ import annotations

from cyclery.records.metrics._units import EPSILON

UNIT = EPSILON
BETTER = "smaller"
BY_ENDING = True
WORDS = {"train_epsilon": "epsilon"}
