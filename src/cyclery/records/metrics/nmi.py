"""Normalised mutual information of classes and clusters.

It is divided by the arithmetic mean of their entropies: 1 where each tells the other, 0 where
neither tells anything.
"""

from __future__ import annotations

from cyclery.records.metrics._units import SHARE, nothing

UNIT = SHARE
BETTER = "larger"
BY_ENDING = True
worst = nothing
