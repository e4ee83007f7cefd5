"""Share of unknown samples taken for unknown."""

from __future__ import annotations

from cyclery.records.metrics._units import POINTS

UNIT = POINTS
BETTER = "larger"
BY_ENDING = True
