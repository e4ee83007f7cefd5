"""Expected calibration error over 15 bins of equal width of the top probability."""

from __future__ import annotations

from cyclery.records.metrics._units import EVALUATED, SHARE

UNIT = SHARE
BETTER = "smaller"
PARTS = (*EVALUATED, "train")
WORDS = {"test_ece": "test ECE", "train_ece": "ECE on the training samples"}
