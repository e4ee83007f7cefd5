"""Accuracy of an ensemble above the mean accuracy of its members."""

from __future__ import annotations

from cyclery.records.metrics._units import POINTS

UNIT = POINTS
BETTER = "larger"
BY_ENDING = True
WORDS = {
    "test_ensemble_gain": "ensemble above its mean member",
    "raw_test_ensemble_gain": "ensemble above its mean member, without averaged weights",
}
