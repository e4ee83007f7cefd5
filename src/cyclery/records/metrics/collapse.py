"""Spread of features of length 1 over the sphere: near 1 when spread, 0 when collapsed.

It is sqrt(D) times the mean over D dimensions of the deviation over samples, as contrastive methods
watch it.
"""

from __future__ import annotations

from cyclery.records.metrics._units import SHARE, nothing

UNIT = SHARE
BETTER = "larger"
BY_ENDING = True
worst = nothing
