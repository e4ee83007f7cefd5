"""Share of samples whose likeliest class is that of the teacher, or of the reference."""

from __future__ import annotations

from cyclery.records.metrics._units import POINTS, TAUGHT, chance

UNIT = POINTS
BETTER = "larger"
PARTS = TAUGHT
NEEDS_TEACHER = True
WORDS = {
    "test_agreement": "agreement with the teacher",
    "train_agreement": "agreement with the teacher in training",
}
worst = chance
