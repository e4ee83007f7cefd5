"""Share of samples with one of their class among the k nearest others, as `recall_at_1`."""

from __future__ import annotations

from cyclery.records.metrics._units import POINTS

UNIT = POINTS
BETTER = "larger"
BY_ENDING = True
# Chance depends on k and on the classes of the part, so a run that diverged is worth nothing here.
