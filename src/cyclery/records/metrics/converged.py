"""1 where the fits of a probe converged, else 0."""

from __future__ import annotations

from cyclery.records.metrics._units import SHARE

UNIT = SHARE
BETTER = "larger"
BY_ENDING = True
