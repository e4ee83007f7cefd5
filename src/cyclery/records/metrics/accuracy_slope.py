"""Change of an accuracy from one stage of a run to the next, by a least-squares line.

A run that diverged has no line, so its pair is left out.
"""

from __future__ import annotations

from cyclery.records.metrics._units import POINTS

UNIT = POINTS
BETTER = "larger"
BY_ENDING = True
WORDS = {"test_accuracy_slope": "test accuracy gained per stage"}
