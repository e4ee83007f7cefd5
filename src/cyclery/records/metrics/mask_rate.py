"""Share of the pseudo-labels of an epoch that were used."""

from __future__ import annotations

from cyclery.records.metrics._units import SHARE

UNIT = SHARE
BETTER = None
CURVES = ("train",)
WORDS = {"train_mask_rate": "share of pseudo-labels that are used"}
