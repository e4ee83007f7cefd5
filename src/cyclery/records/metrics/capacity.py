"""Largest mutual information of models and answers that a prior over the models can have."""

from __future__ import annotations

from cyclery.records.metrics._units import BITS

UNIT = BITS
BETTER = None
BY_ENDING = True
