"""Share of unknown samples taken for known; `fpr_at_95` where 95 % of known ones are."""

from __future__ import annotations

from cyclery.records.metrics._units import POINTS

UNIT = POINTS
BETTER = "smaller"
BY_ENDING = True
