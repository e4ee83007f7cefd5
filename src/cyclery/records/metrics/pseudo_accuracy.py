"""Share of right ones among the pseudo-labels that an epoch used."""

from __future__ import annotations

from cyclery.records.metrics._reading import Curve, Record, stored_curve
from cyclery.records.metrics._units import POINTS, chance

UNIT = POINTS
BETTER = "larger"
CURVES = ("train",)
worst = chance


def curve(record: Record) -> Curve:
    """Return ``train_pseudo_correct / train_mask_rate`` by epoch; None where none was used."""
    epochs, correct = stored_curve(record, "train_pseudo_correct")
    _, used = stored_curve(record, "train_mask_rate")
    if len(used) != len(correct):
        return [], []
    return epochs, [r / share if share else None for r, share in zip(correct, used, strict=True)]
