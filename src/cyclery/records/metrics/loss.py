"""The loss of the method in training, the mean over an epoch."""

from __future__ import annotations

from cyclery.records.metrics._units import LOSS

UNIT = LOSS
BETTER = "smaller"
CURVES = ("train",)
