"""Share of first views of an epoch that were more like their second view than any other's."""

from __future__ import annotations

from cyclery.records.metrics._units import POINTS, nothing

UNIT = POINTS
BETTER = "larger"
CURVES = ("train",)
WORDS = {"train_contrastive_accuracy": "contrastive accuracy"}
worst = nothing
