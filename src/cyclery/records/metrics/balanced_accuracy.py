"""Mean of the accuracies of the classes that occur."""

from __future__ import annotations

from cyclery.records.metrics._units import EVALUATED, POINTS, chance

UNIT = POINTS
BETTER = "larger"
PARTS = EVALUATED
worst = chance
