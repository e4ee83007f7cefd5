"""Dimensions that features of length 1 use: exp of the entropy of their singular values' shares.

O. Roy, M. Vetterli, The effective rank (EUSIPCO 2007): 1 where all features are one direction.
"""

from __future__ import annotations

from cyclery.records.metrics._units import COUNT

UNIT = COUNT
BETTER = "larger"
BY_ENDING = True
