"""Penalty on half the squared weights that a linear probe chose."""

from __future__ import annotations

from cyclery.records.metrics._units import PENALTY

UNIT = PENALTY
BETTER = None
BY_ENDING = True
