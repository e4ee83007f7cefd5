"""Area under the ROC curve: share of pairs of a known and an unknown sample ranked right.

The known one has the larger score; equal scores count half.
"""

from __future__ import annotations

from cyclery.records.metrics._units import POINTS, half

UNIT = POINTS
BETTER = "larger"
BY_ENDING = True
worst = half
