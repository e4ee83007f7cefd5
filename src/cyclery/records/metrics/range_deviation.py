"""Decades from a seed's bounds to their geometric mean over seeds, of the bound further off."""

from __future__ import annotations

from cyclery.records.metrics._units import DEVIATION

UNIT = DEVIATION
BETTER = "smaller"
OF_RANGE_TEST = True
