"""Share of known samples taken for known."""

from __future__ import annotations

from cyclery.records.metrics._units import POINTS

UNIT = POINTS
BETTER = "larger"
BY_ENDING = True
