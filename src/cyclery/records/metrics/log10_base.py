"""Logarithm to base 10 of the lower bound that the range test found."""

from __future__ import annotations

from cyclery.records.metrics._units import BOUND

UNIT = BOUND
BETTER = None
OF_RANGE_TEST = True
